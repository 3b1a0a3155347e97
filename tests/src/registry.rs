//! An image registry on a free port.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::image::{Image, MANIFEST, sha256};

/// A running registry. Dropping it ends it.
pub struct Registry {
    child: Child,
    directory: TempDir,
    pub port: u16,
    credentials: Option<(String, String)>,
    http: reqwest::Client,
}

impl Registry {
    /// Starts a registry that needs no credentials.
    pub async fn start() -> Self {
        Self::launch(None).await
    }

    /// Starts a registry that needs this user and password.
    pub async fn with_password(user: &str, password: &str) -> Self {
        Self::launch(Some((user.into(), password.into()))).await
    }

    async fn launch(credentials: Option<(String, String)>) -> Self {
        let directory = tempfile::Builder::new().prefix("berth-registry").tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            directory.path().join("data").display()
        );
        if let Some((user, password)) = &credentials {
            let passwords = directory.path().join("htpasswd");
            fs::write(&passwords, htpasswd(user, password)).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", passwords.display());
        }
        let path = directory.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let child = Command::new(crate::program("BERTH_TEST_REGISTRY"))
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .expect("start the registry");
        let registry = Self { child, directory, port, credentials, http: reqwest::Client::new() };
        registry.listening().await;
        registry
    }

    async fn listening(&self) {
        for _ in 0..500 {
            if self.http.get(self.url("")).send().await.is_ok() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!(
            "the registry does not answer: {}",
            fs::read_to_string(self.directory.path().join("log")).unwrap()
        );
    }

    /// Pid of the registry, for tests that stop it with SIGSTOP.
    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/v2/{path}", self.port)
    }

    /// Reference of the image `name` in this registry.
    pub fn reference(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Path of a blob in the registry's storage, for tests that damage it.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.directory.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Pushes an image under `name:tag` and returns its reference.
    pub async fn push(&self, name: &str, image: &Image) -> String {
        let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
        for layer in &image.layers {
            self.push_blob(repository, &layer.blob).await;
        }
        self.push_blob(repository, &image.config_bytes()).await;
        self.push_manifest(repository, tag, MANIFEST, image.manifest()).await;
        self.reference(&format!("{repository}:{tag}"))
    }

    pub async fn push_blob(&self, repository: &str, blob: &[u8]) {
        let started = self.send(self.http.post(self.url(&format!("{repository}/blobs/uploads/")))).await;
        let location = started.headers()["location"].to_str().unwrap().to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let target = format!("{location}{separator}digest={}", sha256(blob));
        self.send(self.http.put(target).body(blob.to_vec())).await;
    }

    pub async fn push_manifest(&self, repository: &str, tag: &str, media_type: &str, manifest: Vec<u8>) {
        let url = self.url(&format!("{repository}/manifests/{tag}"));
        self.send(self.http.put(url).header("content-type", media_type).body(manifest)).await;
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Response {
        let request = match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{response:?}");
        response
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line of a password file, made by Apache's htpasswd.
fn htpasswd(user: &str, password: &str) -> Vec<u8> {
    let made = Command::new("htpasswd").args(["-Bbn", user, password]).output();
    made.expect("run htpasswd (Debian package apache2-utils)").stdout
}
