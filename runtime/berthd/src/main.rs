//! Entry point of `berthd`.

#![forbid(unsafe_code)]

mod args;

use std::{
    error::Error,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

use args::{Check, Command, HELP, Overrides};
use berth_image::Images;
use berth_network::Network;
use berth_work::descriptors;
use berthd::{
    apparmor, check,
    config::{self, Config, Log, LogFormat},
    cri::Cri,
    runtime::{Options, Runtime},
    server::{self, Lock, Services},
    spec::{Defaults, Host, HostFeatures},
    streaming,
    sys::heap,
};
use futures::FutureExt;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// Name of the binary of Berth's own shim.
const SHIM_NAME: &str = "containerd-shim-berth-v1";

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    heap::set_mmap_threshold();
    match run() {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("berthd: {}", with_causes(&*failure));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Failure> {
    match args::parse(lexopt::Parser::from_env())? {
        Command::Serve(overrides) => {
            let runtime = tokio::runtime::Runtime::new()?;
            let served = runtime.block_on(serve(configure(overrides)?));
            // Does not wait for blocking threads: one may hang, for example in open(2) of a FIFO.
            runtime.shutdown_background();
            served?;
        }
        Command::Check(check) => return check_directories(check),
        Command::ConfigDefault => print!("{}", config::default_text()),
        Command::ConfigCheck(file) => {
            Config::load(&file)?;
            println!("{} is valid", file.display());
        }
        Command::Version => println!("berthd {}", env!("CARGO_PKG_VERSION")),
        Command::Help => print!("{HELP}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints one line per finding. Exits with success when nothing is wrong or everything was repaired.
fn check_directories(Check { repair, overrides }: Check) -> Result<ExitCode, Failure> {
    let config = configure(overrides)?;
    let outcome = tokio::runtime::Runtime::new()?.block_on(check::check(&config, repair))?;
    outcome.lines.iter().for_each(|line| println!("{line}"));
    Ok(if outcome.wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns an error and its causes in one line, without causes whose text it already contains.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        next = cause.source();
    }
    text
}

/// Returns the configuration of this run: the file, overridden by the command line.
fn configure(overrides: Overrides) -> Result<Config, config::Error> {
    let mut config = match overrides.config {
        Some(file) => Config::load(&file)?,
        None => Config::load_default()?,
    };
    config.root = overrides.root.unwrap_or(config.root);
    config.state = overrides.state.unwrap_or(config.state);
    config.socket.path = overrides.socket.or(config.socket.path);
    config.checked()
}

async fn serve(config: Config) -> Result<(), Failure> {
    start_log(&config.log)?;
    let stop = stop_signal()?;
    let _lock = Lock::take(&config.root, Lock::TIMEOUT).await?;
    let socket = config.socket_path();
    let streaming = streaming::Server::bind(&config.streaming).await?;
    let (runtime, features) = open(&config).await?;
    // Bound only now, so that every connection that is accepted gets an answer.
    let listener = server::bind(&socket, &config.socket)?;
    let network = runtime.network.clone();
    let events = runtime.events.clone();
    let nri = runtime.nri.clone();
    let cri = Cri::new(runtime.clone(), config.clone(), features, streaming.tokens());
    let (stopping, stopped) = oneshot::channel::<()>();
    let sessions = streaming.serve(runtime.containers, runtime.pods, stopped.map(drop));
    let sessions = tokio::spawn(sessions);
    info!(version = env!("CARGO_PKG_VERSION"), socket = %socket.display(), root = %config.root.display(), "serving");
    if let Err(error) = server::notify_ready() {
        warn!(%error, "the service manager was not told that the daemon serves");
    }
    // Event streams and sessions have no end of their own, and would keep the server from stopping.
    let stop = stop.inspect(move |()| {
        events.close();
        drop(stopping);
    });
    server::serve(listener, Services::new(cri), stop, server::DRAIN_TIMEOUT).await?;
    sessions.await?;
    std::fs::remove_file(&socket)?;
    nri.close().await;
    network.close().await;
    info!("stopped");
    Ok(())
}

/// Opens images, network and records, and recovers the pods that run.
async fn open(config: &Config) -> Result<(Runtime, HostFeatures), Failure> {
    let images = Images::open(image_config(config)).await?;
    let network = Network::open(config.network.clone(), &config.root).await?;
    let probed = Host::probe(Path::new("/"), config.pods.restrict_oom_score_adj)?;
    let host = Host { apparmor: apparmor::set_up().await, ..probed };
    let features = host.features;
    let limit = config.pods.pids_limit;
    let options = Options {
        root: config.root.clone(),
        state: config.state.clone(),
        netns: config.network.netns_dir.clone(),
        shim: shim(config.pods.shim.as_deref())?,
        handlers: config.handlers.clone(),
        cgroup_root: config.pods.cgroup_root.clone(),
        max_log_line: config.pods.max_log_line,
        cdi_dirs: config.cdi.dirs.clone(),
        host,
        defaults: Defaults {
            pids_limit: (limit > 0).then_some(limit.into()),
            rlimits: vec![descriptors::raise_limit()?],
        },
        nri: config.nri.clone(),
    };
    Ok((Runtime::open(options, images, network).await?, features))
}

fn image_config(config: &Config) -> berth_image::Config {
    let mut images = berth_image::Config::new(config.image_root());
    images.registry.hosts_dirs = config.images.hosts_dirs.clone();
    images.max_parallel_layers = config.images.max_parallel_layers;
    images.pinned = config.images.pinned_names();
    images
}

/// Returns the shim's path: the configured one, else beside this binary, else in `PATH`.
fn shim(configured: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = configured {
        return Ok(path.to_owned());
    }
    let beside = std::env::current_exe()?.with_file_name(SHIM_NAME);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places =
        std::iter::once(beside).chain(std::env::split_paths(&path).map(|dir| dir.join(SHIM_NAME)));
    places.find(|place| place.is_file()).ok_or_else(|| {
        format!("{SHIM_NAME} is neither beside berthd nor in PATH; configuration key pods.shim can name it")
            .into()
    })
}

fn start_log(log: &Log) -> Result<(), Failure> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&log.level)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Returns a future that completes at the first SIGTERM or SIGINT.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
