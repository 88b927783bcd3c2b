//! PostgreSQL: a primary and two standbys that stream from it; a commit waits until the primary and one of them have synced it.
//!
//! It refuses to run as root: then it runs as the user `postgres`, who must be able to reach the folder.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Signal, geteuid};

use super::{NODES, Peer, Place, Server, local, ready};
use crate::store::postgres::Postgres as Store;

/// Where Debian has each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Servers that run, with their table.
#[derive(Debug)]
pub struct Postgres {
    ports: Vec<u16>,
    servers: Vec<Server>,
}

/// The programs of the newest version, and who runs them.
struct Programs {
    folder: PathBuf,
    user: Option<(u32, u32)>,
}

impl Programs {
    fn find() -> Result<Self, String> {
        let versions =
            std::fs::read_dir(VERSIONS).map_err(|error| format!("{VERSIONS}: {error}"))?;
        let versions = versions.flatten().filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            folder
                .join("postgres")
                .exists()
                .then_some((version, folder))
        });
        let (_, folder) = versions.max().ok_or("PostgreSQL is not installed")?;
        let user = if geteuid().is_root() {
            let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
            Some(user_of(&users).ok_or("there is no user postgres")?)
        } else {
            None
        };
        Ok(Self { folder, user })
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.folder.join(name));
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// A folder that only its user may enter, as the servers demand.
    fn own(&self, folder: &Path) -> Result<(), String> {
        let fails = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(folder).map_err(fails)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(fails)?;
        if let Some((user, group)) = self.user {
            chown(folder, Some(user), Some(group)).map_err(fails)?;
        }
        Ok(())
    }
}

/// User and group of `postgres`, from a line of `/etc/passwd`.
fn user_of(users: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2);
    let mut number = || fields.next()?.parse().ok();
    Some((number()?, number()?))
}

async fn run(command: &mut Command) -> Result<(), String> {
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new("")));
    let done = command.kill_on_drop(true).output().await;
    let done = done.map_err(|error| error.to_string())?;
    if done.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
}

impl Postgres {
    fn server(
        programs: &Programs,
        data: &Path,
        port: u16,
        standbys: &str,
    ) -> Result<Server, String> {
        let mut command = programs.command("postgres");
        command.arg("-D").arg(data);
        for setting in [
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "max_connections=300".to_owned(),
            format!("synchronous_standby_names={standbys}"),
        ] {
            command.args(["-c", &setting]);
        }
        let server = Server::start(&mut command, &data.with_extension("log"))?;
        // At once, without waiting for clients.
        Ok(server.ended_by(Signal::INT))
    }
}

impl Peer for Postgres {
    type Store = Store;

    async fn start(place: &Place) -> Result<Self, String> {
        let folder = place.empty("postgres")?;
        let programs = Programs::find()?;
        programs.own(&folder)?;
        let ports = (0..NODES).map(|node| place.port(600 + node));
        let ports = ports.collect::<Result<Vec<_>, _>>()?;
        let primary = folder.join("p");
        programs.own(&primary)?;
        let mut init = programs.command("initdb");
        init.args([
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "-D",
        ]);
        run(init.arg(&primary).current_dir(&folder)).await?;
        let standbys = "ANY 1 (s1, s2)";
        let mut servers = vec![Self::server(&programs, &primary, ports[0], standbys)?];
        let nodes: Vec<_> = ports.iter().map(|port| local(*port)).collect();
        let store = Store::new(&nodes, Duration::from_secs(2));
        ready("PostgreSQL", &mut servers, async || {
            store.query("SELECT 1").await.map(drop)
        })
        .await?;
        for (number, port) in ports.iter().enumerate().skip(1) {
            let data = folder.join(format!("s{number}"));
            programs.own(&data)?;
            let from = format!(
                "host=127.0.0.1 port={} user=postgres application_name=s{number}",
                ports[0]
            );
            let mut copy = programs.command("pg_basebackup");
            copy.args(["-R", "-c", "fast", "-d", &from, "-D"])
                .arg(&data);
            run(copy.current_dir(&folder)).await?;
            servers.push(Self::server(&programs, &data, *port, "")?);
        }
        ready("PostgreSQL with two standbys", &mut servers, async || {
            let count = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'";
            match &*store.query(count).await? {
                "2" => store.prepare().await,
                other => Err(format!("{other} standbys")),
            }
        })
        .await?;
        Ok(Self { ports, servers })
    }

    async fn store(&self, limit: Duration) -> Result<Store, String> {
        let nodes: Vec<_> = self.ports.iter().map(|port| local(*port)).collect();
        Ok(Store::new(&nodes, limit))
    }

    fn nodes(&self) -> Vec<u32> {
        self.servers.iter().map(Server::pid).collect()
    }

    async fn leader(&self) -> Result<u32, String> {
        Err("nobody follows its primary by itself".to_owned())
    }

    async fn stop(self) {
        for server in self.servers.into_iter().rev() {
            server.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_found() {
        let users = "root:x:0:0:root:/root:/bin/sh\npostgres:x:105:111:a,b:/var:/bin/sh\n";
        assert_eq!(user_of(users), Some((105, 111)));
        assert_eq!(user_of("postgres:x:\n"), None);
        assert_eq!(user_of(""), None);
    }
}
