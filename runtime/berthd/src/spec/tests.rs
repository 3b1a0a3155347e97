//! Tests of whole specifications, and the fixture of the other tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use oci_spec::runtime::{Capability, LinuxNamespaceType, PosixRlimitBuilder, PosixRlimitType};

use super::*;
use crate::container::config::{Mount, Propagation, Resources, Security, UserName};

/// Owns what [`Inputs`] borrows, so that each test changes only what it needs.
#[derive(Clone)]
pub(crate) struct Given {
    pub(crate) container: ContainerConfig,
    pub(crate) pod: PodConfig,
    pub(crate) image: ImageDefaults,
    pub(crate) user: ResolvedUser,
    pub(crate) host: Host,
    pub(crate) defaults: Defaults,
    pub(crate) files: PodFiles,
    pub(crate) volumes: Vec<ImageVolume>,
    pub(crate) devices: devices::Devices,
    pub(crate) seccomp: Option<seccomp::Profile>,
    pub(crate) pid: PidNamespace,
}

impl Given {
    /// Returns a container that runs `true`, on a host with all features.
    pub(crate) fn usual() -> Self {
        let user = user::resolve(&Default::default(), "", &Default::default()).unwrap();
        let mut given = Self {
            container: Default::default(),
            pod: Default::default(),
            image: Default::default(),
            user,
            host: Default::default(),
            defaults: Default::default(),
            files: Default::default(),
            volumes: Default::default(),
            devices: Default::default(),
            seccomp: None,
            pid: Default::default(),
        };
        given.container.command = vec!["true".to_owned()];
        given.host.capabilities = [Capability::Chown, Capability::Kill, Capability::SysAdmin].into();
        given.host.features = HostFeatures { recursive_readonly: true, user_namespaces: true };
        given.host.swap = true;
        given
    }

    pub(crate) fn privileged() -> Self {
        let mut given = Self::usual();
        given.container.security.privileged = true;
        given.pod.privileged = true;
        given
    }

    pub(crate) fn inputs(&self) -> Inputs<'_> {
        Inputs {
            container: &self.container,
            pod: &self.pod,
            image: &self.image,
            user: &self.user,
            host: &self.host,
            defaults: &self.defaults,
            hostname: "web-0",
            files: &self.files,
            volumes: &self.volumes,
            devices: &self.devices,
            seccomp: self.seccomp.as_ref(),
            cgroup_path: "/berth/pod/abc",
            pid: self.pid.clone(),
        }
    }
}

pub(crate) fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn a_plain_container_is_described_in_full() {
    let spec = build(&Given::usual().inputs()).unwrap();
    assert_eq!(spec.version(), "1.3.0");
    assert_eq!(
        spec.root().as_ref().map(|root| (root.path().as_path(), root.readonly())),
        Some((Path::new("rootfs"), Some(false)))
    );
    assert_eq!((spec.hostname(), spec.hooks()), (&None, &None));
    let annotations = spec.annotations().as_ref().unwrap();
    let keys = ["container-name", "image-name", "sandbox-name", "sandbox-namespace", "sandbox-uid"];
    assert!(keys.iter().all(|key| annotations.contains_key(&format!("io.kubernetes.cri.{key}"))));
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/berth/pod/abc")));
    assert_eq!((linux.seccomp(), linux.sysctl(), linux.rootfs_propagation()), (&None, &None, &None));
    assert_eq!((linux.masked_paths(), linux.readonly_paths()), (&Some(vec![]), &Some(vec![])));
    let resources = linux.resources().as_ref().unwrap();
    assert_eq!((resources.cpu(), resources.memory(), resources.pids()), (&None, &None, &None));
    let kinds: Vec<_> = linux.namespaces().iter().flatten().map(|namespace| namespace.typ()).collect();
    assert_eq!(kinds, [LinuxNamespaceType::Mount, LinuxNamespaceType::Pid]);
}

#[test]
fn a_description_reads_back_from_json_as_it_was() {
    let spec = build(&Given::privileged().inputs()).unwrap();
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    assert!(!json.contains("null"), "a member that is absent is left out: {json}");
}

#[test]
fn the_root_is_read_only_where_asked() {
    let mut given = Given::usual();
    given.container.security.readonly_rootfs = true;
    assert_eq!(build(&given.inputs()).unwrap().root().as_ref().unwrap().readonly(), Some(true));
}

#[test]
fn paths_are_hidden_as_the_caller_says_and_never_from_a_privileged_container() {
    for (mut given, masked, readonly) in [
        (Given::usual(), vec!["/proc/kcore", "/sys/firmware"], vec!["/proc/sys"]),
        (Given::privileged(), vec![], vec![]),
    ] {
        given.container.security.masked_paths = words(&["/proc/kcore", "/sys//firmware/"]);
        given.container.security.readonly_paths = words(&["/proc/sys"]);
        let spec = build(&given.inputs()).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(*linux.masked_paths(), Some(words(&masked)));
        assert_eq!(*linux.readonly_paths(), Some(words(&readonly)));
    }
    let mut given = Given::usual();
    given.container.security.masked_paths = words(&["proc/kcore"]);
    let error = build(&given.inputs()).unwrap_err();
    assert_eq!(error, Error::invalid("masked_paths", "proc/kcore", "is not an absolute path"));
}

#[test]
fn a_privileged_container_needs_a_privileged_pod() {
    let mut given = Given::privileged();
    given.pod.privileged = false;
    given.container.metadata.name = "root".to_owned();
    assert_eq!(build(&given.inputs()), Err(Error::Unprivileged("root".to_owned())));
}

#[test]
fn what_the_daemon_gives_to_all_is_given() {
    let mut given = Given::usual();
    let nofile = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(1024u64).hard(4096u64);
    let nofile = nofile.build().unwrap();
    given.defaults = Defaults { pids_limit: Some(100), rlimits: vec![nofile] };
    let spec = build(&given.inputs()).unwrap();
    let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    assert_eq!(resources.pids().map(|pids| pids.limit()), Some(100));
    assert_eq!(*spec.process().as_ref().unwrap().rlimits(), Some(vec![nofile]));
}

#[test]
fn limits_of_the_container_are_in_its_description() {
    let mut given = Given::usual();
    given.container.resources =
        Resources { memory_limit: Some(1 << 20), oom_score_adj: Some(7), ..Default::default() };
    let spec = build(&given.inputs()).unwrap();
    let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    assert_eq!(resources.memory().unwrap().limit(), Some(1 << 20));
    assert_eq!(spec.process().as_ref().unwrap().oom_score_adj(), Some(7));
}

#[test]
fn an_error_of_this_host_is_told_from_one_of_the_request() {
    assert!(Error::RecursiveReadonly("/mnt".to_owned()).is_unsupported());
    assert!(Error::RecursiveReadonly("/mnt".to_owned()).to_string().starts_with("RROUnsupported: "));
    assert!(!Error::NoCommand.is_unsupported());
}

/// A xorshift generator: the same numbers in every run, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next() as usize % from.len()]
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 20] = [
            "",
            "/",
            "..",
            ":",
            "=",
            "\0",
            "ALL",
            "0",
            "-1",
            "99999999999999999999",
            "RTMIN+",
            "é",
            "CHOWN",
            "/dev",
            "root",
            "a",
            "0-",
            ",",
            "SIG",
            "\n",
        ];
        (0..self.next() % 5).map(|_| self.pick(&PIECES)).collect()
    }

    fn texts(&mut self) -> Vec<String> {
        (0..self.next() % 3).map(|_| self.text()).collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.next() % 200).map(|_| self.pick(b":\n\0,x0\xff19#\r")).collect()
    }

    fn number(&mut self) -> Option<i64> {
        let edges = [0, 1, 2, -1, -2, 1000, i64::MAX, i64::MIN, i64::from(u32::MAX)];
        (!self.next().is_multiple_of(4)).then(|| self.pick(&edges))
    }

    fn flag(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }

    fn mount(&mut self) -> Mount {
        let kinds = [Propagation::Private, Propagation::HostToContainer, Propagation::Bidirectional];
        Mount {
            container_path: self.text(),
            host_path: self.text(),
            readonly: self.flag(),
            recursive_readonly: self.flag(),
            propagation: self.pick(&kinds),
            ..Default::default()
        }
    }

    fn volume(&mut self) -> ImageVolume {
        let mount = ImageMount { container_path: self.text(), ..Default::default() };
        ImageVolume { mount, part: Part::File("/layer/file".into()) }
    }

    fn resources(&mut self) -> Resources {
        Resources {
            cpu_quota: self.number(),
            cpu_shares: self.number().map(i64::cast_unsigned),
            cpuset_cpus: Some(self.text()),
            memory_limit: self.number(),
            memory_swap_limit: self.number(),
            oom_score_adj: self.number(),
            hugepages: vec![(self.text(), self.next())],
            unified: [(self.text(), self.text())].into(),
            ..Default::default()
        }
    }

    /// Returns a usual container with some invalid parts.
    fn given(&mut self) -> Given {
        let mut given = if self.flag() { Given::usual() } else { Given::privileged() };
        for _ in 0..=self.next() % 4 {
            self.spoil(&mut given);
        }
        given
    }

    fn spoil(&mut self, given: &mut Given) {
        let security = &mut given.container.security;
        match self.next() % 12 {
            0 => given.image.working_dir = self.text(),
            1 => given.image.env = self.texts(),
            2 => given.image.entrypoint = self.texts(),
            3 => given.container.args = self.texts(),
            4 => given.volumes = vec![self.volume()],
            5 => given.container.mounts = vec![self.mount(), self.mount()],
            6 => given.container.command = self.texts(),
            7 => given.container.env = vec![(self.text(), self.bytes())],
            8 => security.drop_capabilities = self.texts(),
            9 => security.add_capabilities = self.texts(),
            10 => security.masked_paths = self.texts(),
            _ => given.container.resources = self.resources(),
        }
    }
}

#[test]
fn no_input_makes_it_panic_and_what_it_makes_keeps_its_promises() {
    let mut random = Random(0xbe47_5eed);
    let mut described = 0;
    for _ in 0..20_000 {
        let given = random.given();
        let Ok(spec) = build(&given.inputs()) else { continue };
        described += 1;
        let process = spec.process().as_ref().unwrap();
        assert!(!process.args().as_ref().unwrap()[0].is_empty());
        assert!(process.cwd().is_absolute());
        let bounding = process.capabilities().as_ref().unwrap().bounding().clone().unwrap();
        assert!(bounding.is_subset(&given.host.capabilities));
        for mount in spec.mounts().iter().flatten() {
            assert!(mount.destination().is_absolute() && mount.destination() != Path::new("/"));
        }
    }
    assert!(described > 100, "only {described} of them reached the end");
}

#[test]
fn each_random_part_alone_is_taken_or_refused_without_panic() {
    let mut random = Random(0xb0a7);
    for _ in 0..20_000 {
        let text = random.text();
        drop(text.parse::<Signal>());
        let accounts = Accounts::parse(&random.bytes(), &random.bytes());
        let security =
            Security { user: random.flag().then(|| UserName::Name(text.clone())), ..Default::default() };
        drop(user::resolve(&security, &text, &accounts));
        let merged = resources::merge(&random.resources(), &random.resources());
        drop(resources::to_oci(&merged, &Given::usual().host));
        drop(resolv::hostname(&text));
    }
}
