//! A cluster of real processes for tests: `pspd dev` in a temporary folder, on free ports, ended with the test.
//!
//! Waits for conditions with a limit, never for time. What a test prints shows only when it fails.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How long any one condition may take to come true: long, because the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A running `pspd dev`.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    /// The supervisor.
    pub(crate) dev: Option<Child>,
    /// A client for everything.
    pub(crate) http: reqwest::Client,
}

impl Cluster {
    /// Starts three nodes and waits until they are ready.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with settings for every node, as in `storage.memory=64MiB`.
    pub(crate) async fn start_with(settings: &[&str]) -> Self {
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let http = reqwest::Client::builder()
            .timeout(LIMIT)
            .no_proxy()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self {
            folder,
            port: free_port(),
            settings: settings
                .iter()
                .map(|setting| format!("--set={setting}"))
                .collect(),
            dev: None,
            http,
        };
        cluster.boot().await;
        cluster
    }

    /// Starts the nodes again after [`Cluster::stop`].
    pub(crate) async fn boot(&mut self) {
        assert!(self.dev.is_none(), "the cluster runs already");
        let dev = pspd()
            .args([
                "dev",
                "--nodes",
                "3",
                "--port",
                &self.port.to_string(),
                "--data",
            ])
            .arg(self.folder.path())
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.dev = Some(dev);
        until("the cluster is ready", async || {
            let ended = self.dev.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none(),
                "pspd dev ended: {ended:?}\n{}",
                self.logs()
            );
            self.folder().join("dev.json").exists().then_some(())
        })
        .await;
    }

    /// Ends everything with SIGTERM; how the supervisor ended.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let mut dev = self.dev.take().expect("the cluster runs");
        signal(dev.id(), "TERM");
        until("pspd dev ended", async || dev.try_wait().unwrap()).await
    }

    /// Where everything of it is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `dev.json`.
    pub(crate) fn record(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.folder().join("dev.json")).unwrap()).unwrap()
    }

    /// A node's process.
    pub(crate) fn pid(&self, node: usize) -> u32 {
        u32::try_from(self.record()["nodes"][node]["pid"].as_u64().unwrap()).unwrap()
    }

    /// Runs `pspd` with these arguments against this cluster.
    pub(crate) fn pspd(&self, args: &[&str]) -> Output {
        pspd()
            .args(args)
            .env("PSP_DATA", self.folder())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Stores a session through a node; its id.
    pub(crate) async fn create(&self, node: usize, body: &str) -> String {
        let answer = self
            .request(reqwest::Method::POST, node, "")
            .header("content-type", "application/json")
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, 201, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Reads a session through a node, with one request.
    pub(crate) async fn read(&self, node: usize, id: &str) -> Value {
        let path = format!("/{id}");
        let answer = self
            .request(reqwest::Method::GET, node, &path)
            .send()
            .await
            .unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn request(
        &self,
        method: reqwest::Method,
        node: usize,
        path: &str,
    ) -> reqwest::RequestBuilder {
        let record = self.record();
        let http = record["nodes"][node]["http"].as_str().unwrap();
        let url = format!("{http}/api/v2/sessions{path}");
        self.http
            .request(method, url)
            .bearer_auth(record["api_key"].as_str().unwrap())
    }

    /// The end of every node's log.
    pub(crate) fn logs(&self) -> String {
        let tail = |node: usize| {
            let path = self.folder().join(format!("node-{node}/pspd.log"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(15);
            format!("node {node}:\n{}\n", lines[from..].join("\n"))
        };
        (0..3).map(tail).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut dev) = self.dev.take() {
            // The nodes end with it.
            drop(dev.kill());
            drop(dev.wait());
        }
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

fn pspd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pspd"))
}

/// Sends a signal by its name.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}

/// Asks every 20 ms until there is an answer, within [`LIMIT`].
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
    }
}

/// A port such that it and the next two are free, and those 100 and 200 above.
fn free_port() -> u16 {
    let free = |port: u16| {
        (0..3).all(|node| {
            TcpListener::bind(("127.0.0.1", port + node)).is_ok()
                && TcpListener::bind(("127.0.0.1", port + 100 + node)).is_ok()
                && UdpSocket::bind(("127.0.0.1", port + 200 + node)).is_ok()
        })
    };
    (0..100)
        .map(|_| rand::random_range(10_000..28_000))
        .find(|port| free(*port))
        .expect("a free port")
}
