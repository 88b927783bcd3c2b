//! nginx: one worker that serves files, without a log.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::geteuid;

use super::{Peer, Place, Server, local, ready, write};
use crate::store::plain::{self, Plain};

/// A server that runs.
#[derive(Debug)]
pub struct Nginx {
    port: u16,
    files: PathBuf,
    server: Server,
}

impl Peer for Nginx {
    type Store = Plain;

    async fn start(place: &Place) -> Result<Self, String> {
        let folder = place.empty("nginx")?;
        let port = place.port(700)?;
        let files = folder.join("files");
        std::fs::create_dir(&files).map_err(|error| error.to_string())?;
        write(&files.join("ready"), "yes")?;
        let config = folder.join("nginx.conf");
        // Only root's worker can be another user, who might not reach the folder.
        let user = if geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let text = format!(
            "daemon off; worker_processes 1; pid nginx.pid; {user}\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n\
             access_log off; sendfile on; keepalive_requests 1000000000; default_type application/json;\n\
             client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n\
             server {{ listen 127.0.0.1:{port}; root files; }}\n\
             }}\n"
        );
        write(&config, &text)?;
        let mut command = Command::new("/usr/sbin/nginx");
        command
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&config)
            .args(["-e", "stderr"]);
        let mut servers = [Server::start(&mut command, &folder.join("log"))?];
        ready("nginx", &mut servers, async || {
            plain::fetch(local(port), "/ready", Duration::from_secs(2)).await
        })
        .await?;
        let [server] = servers;
        Ok(Self {
            port,
            files,
            server,
        })
    }

    async fn store(&self, limit: Duration) -> Result<Plain, String> {
        Ok(Plain::files(local(self.port), &self.files, limit))
    }

    fn nodes(&self) -> Vec<u32> {
        vec![self.server.pid()]
    }

    async fn leader(&self) -> Result<u32, String> {
        Err("there is one only".to_owned())
    }

    async fn stop(self) {
        self.server.stop().await;
    }
}
