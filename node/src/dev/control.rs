//! How `pspd dev node ...` talks to the supervisor: one line of JSON each way over a Unix socket in the folder.
//!
//! The socket is reached through a handle of its folder, because a socket's path may not be long, and a folder's may.
//! Its folder decides who may connect.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Verb;
use crate::exit::{Exit, OrProblem as _, Problem};

/// The socket's name in the folder of `pspd dev`.
pub(super) const SOCKET: &str = "control.sock";
/// Longest request or answer, in bytes.
const MAX_LINE: u64 = 4096;
/// Commands at a time; more wait to be accepted.
const MAX_COMMANDS: usize = 16;
/// Longest time to send a request once connected.
const READ: Duration = Duration::from_secs(5);
/// Longest time for a command: a node that joins copies its disk first.
const ANSWER: Duration = Duration::from_secs(600);

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// What to do.
    pub(super) verb: Verb,
    /// To which node: its position.
    pub(super) node: u16,
}

/// What became of a command: a text for a person, either way.
pub(super) type Answer = Result<String, String>;

/// A command that waits for its answer.
pub(super) type Pending = (Request, oneshot::Sender<Answer>);

/// Accepts commands for the supervisor. Ends when dropped.
#[derive(Debug)]
pub(super) struct Control {
    commands: mpsc::Receiver<Pending>,
    _tasks: JoinSet<()>,
}

impl Control {
    /// Listens in this folder.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(super) fn listen(folder: &Path) -> std::io::Result<Self> {
        let (handle, path) = reach(folder)?;
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        drop(handle);
        let (sender, commands) = mpsc::channel(MAX_COMMANDS);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, sender));
        Ok(Self {
            commands,
            _tasks: tasks,
        })
    }

    /// The next command. Cancel-safe. Ends never while this exists.
    pub(super) async fn next(&mut self) -> Option<Pending> {
        self.commands.recv().await
    }
}

async fn accept(listener: UnixListener, commands: mpsc::Sender<Pending>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_COMMANDS {
            connections.join_next().await;
        }
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, commands.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A connection that says nothing sensible gets an answer that says so, or is closed.
async fn serve(stream: UnixStream, commands: mpsc::Sender<Pending>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(MAX_LINE));
    let Ok(Ok(_)) = timeout(READ, read.read_line(&mut line)).await else {
        return;
    };
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => {
            let (reply, answer) = oneshot::channel();
            match commands.send((request, reply)).await {
                Ok(()) => answer
                    .await
                    .unwrap_or_else(|_ending| Err("the cluster is ending".into())),
                Err(_ending) => Err("the cluster is ending".into()),
            }
        }
        Err(_json) => Err("not a command of this version of pspd".into()),
    };
    if let Ok(mut text) = serde_json::to_vec(&answer) {
        text.push(b'\n');
        // The asker may be gone; the command is done all the same.
        drop(write.write_all(&text).await);
    }
}

/// Sends a command to the supervisor of this folder and waits for what became of it.
pub(super) async fn ask(folder: &Path, request: &Request) -> Result<String, Problem> {
    let nobody = || format!("no `pspd dev` runs in {}", folder.display());
    let (handle, path) = reach(folder).or_problem(Exit::Unavailable, nobody)?;
    let stream = UnixStream::connect(&path)
        .await
        .or_problem(Exit::Unavailable, nobody)?;
    drop(handle);
    let broken = || "the supervisor did not answer".to_owned();
    let (read, mut write) = stream.into_split();
    let mut text = serde_json::to_vec(request).or_problem(Exit::Failed, broken)?;
    text.push(b'\n');
    write
        .write_all(&text)
        .await
        .or_problem(Exit::Failed, broken)?;
    let mut line = String::new();
    let mut read = BufReader::new(read.take(MAX_LINE));
    timeout(ANSWER, read.read_line(&mut line))
        .await
        .or_problem(Exit::Unknown, broken)?
        .or_problem(Exit::Unknown, broken)?;
    let answer: Answer = serde_json::from_str(&line).or_problem(Exit::Unknown, broken)?;
    answer.map_err(|text| Problem::new(Exit::Failed, text))
}

/// A short path to the socket, good while the handle is open.
fn reach(folder: &Path) -> std::io::Result<(File, PathBuf)> {
    let handle = File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()));
    Ok((handle, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_gets_its_answer_however_long_the_folders_name() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("x".repeat(150));
        std::fs::create_dir(&folder).unwrap();
        let mut control = Control::listen(&folder).unwrap();
        let request = Request {
            verb: Verb::Kill,
            node: 2,
        };
        let (answer, ()) = tokio::join!(ask(&folder, &request), async {
            let (got, reply) = control.next().await.unwrap();
            assert_eq!(got, request);
            reply.send(Err("node 2 is not running".into())).unwrap();
        });
        assert_eq!(answer.unwrap_err().to_string(), "node 2 is not running");
    }

    #[tokio::test]
    async fn nobody_listens_where_no_cluster_runs() {
        let folder = tempfile::tempdir().unwrap();
        let request = Request {
            verb: Verb::Stop,
            node: 0,
        };
        assert_eq!(
            ask(folder.path(), &request).await.unwrap_err().exit(),
            Exit::Unavailable
        );
    }
}
