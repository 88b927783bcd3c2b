//! One node: where the crates are joined, and the ordered lists of its start and its stop.
//!
//! | step | start | stop |
//! |---|---|---|
//! | 1 | metrics, secrets | `/readyz` says no |
//! | 2 | identity: read, or joined with a token | leaderships go to other nodes (not when all stop) |
//! | 3 | gateway: probes answer, clients hear "unavailable" | gateway: no new requests, those in flight end |
//! | 4 | groups, from what is kept locally | own tasks |
//! | 5 | service on top of them: clients are served | groups, transport, log |
//! | 6 | own tasks | |
//!
//! Each step of a stop has a limit (`[stop]`), so a stop ends. A node whose log or state cannot be written ends its
//! process: what it would say is not durable.

use std::sync::Arc;

use gateway::{Gateway, GatewayConfig, Secrets, TlsConfig};
use model::id::{NodeId, RegionId};
use model::meta::NodeAddress;
use model::time::Clock;
use raft::error::{Fatal, StartError};
use raft::host::{Attached, Host, HostConfig, ScrubPace, Tuning};
use raft::log_time::ClusterClock;
use raft::service::{KeyRing, MasterKey, Service, ServiceConfig};
use raft::transport;
use raft::transport::ca::{Authority, Identity};
use secrecy::SecretBox;
use tokio::time::{Instant, timeout};

use crate::admin::Hooks;
use crate::clock::SystemClock;
use crate::config::{Config, Member};
use crate::exit::{Exit, OrProblem as _, Problem, chain};
use crate::join;
use crate::metrics::Registry;
use crate::rebuild;
use crate::secrets::{read_api_key, read_key};
use crate::signals::{Signals, Stop};
use crate::store::Store;
use crate::tasks::{self, Tasks};

/// The id under which a node's first master key is named in what it wraps.
const FIRST_MASTER_KEY: u32 = 1;

/// How often a TLS certificate is looked at for a newer one.
const RELOAD: std::time::Duration = std::time::Duration::from_secs(10);

/// Runs a node until it is told to stop, or cannot go on.
///
/// # Errors
/// What the process is to end with.
pub async fn run(config: Config) -> Result<(), Problem> {
    let mut signals =
        Signals::listen().or_problem(Exit::Failed, || "cannot listen for signals".to_owned())?;
    let starting = Node::start(&config);
    let node = tokio::select! {
        started = starting => started.inspect_err(|problem| tracing::error!(reason = chain(problem), "node not started"))?,
        _ = signals.next() => {
            tracing::info!("told to stop while starting");
            return Ok(());
        }
    };
    node.serve(&mut signals, &config).await
}

/// A running node.
struct Node {
    hooks: Arc<Hooks>,
    gateway: Gateway,
    service: Arc<Service>,
    host: Arc<Host>,
    tasks: Tasks,
}

impl Node {
    async fn start(config: &Config) -> Result<Self, Problem> {
        let began = Instant::now();
        let wall: Arc<dyn Clock> = Arc::new(SystemClock);
        let registry = Registry::install(&*wall)?;
        // Requests are stamped with the cluster's time: this node's own clock may be wrong.
        let clock = ClusterClock::new(&*wall);
        let hooks = Arc::new(Hooks::new(registry.clone()));

        let secrets = gateway_secrets(config)?;
        let keys = key_ring(config)?;
        let region = RegionId::new(config.cluster.region).expect("the configuration is validated");
        let time = Arc::<ClusterClock>::clone(&clock);
        let service = Service::new(ServiceConfig::default(), region, keys, time);

        let sessions = Arc::<Service>::clone(&service);
        let gateway = Gateway::start(
            gateway_config(config),
            secrets,
            sessions,
            Arc::<ClusterClock>::clone(&clock),
            Arc::<Hooks>::clone(&hooks),
        )
        .await
        .or_problem(Exit::Config, || "cannot start the gateway".to_owned())?;
        let addresses = gateway.addresses();
        tracing::info!(http = %addresses.http, admin = %addresses.admin, "gateway listens");

        let host = Arc::new(start_or_rebuild(config, wall, &service).await?);
        host.keep_time(&clock);
        hooks.attach(Box::new(Store::new(Arc::clone(&host))));

        let mut tasks = Tasks::default();
        tasks.start("upkeep", tasks::upkeep(registry));
        tracing::info!(node = %host.node(), took = ?began.elapsed(), "node started");
        Ok(Self {
            hooks,
            gateway,
            service,
            host,
            tasks,
        })
    }

    async fn serve(mut self, signals: &mut Signals, config: &Config) -> Result<(), Problem> {
        let mut fatal = self.host.fatal();
        let ended: Result<Stop, Problem> = tokio::select! {
            stop = signals.next() => Ok(stop),
            task = self.tasks.ended() => Err(Problem::new(Exit::Fatal, format!("the task {task} ended"))),
            cannot_go_on = fatal.wait_for(Option::is_some) => {
                let reason = cannot_go_on.ok().and_then(|reason| reason.clone());
                Err(problem_of(reason))
            }
        };
        match ended {
            Ok(stop) => {
                self.stop(stop, config).await;
                Ok(())
            }
            Err(problem) => {
                tracing::error!(reason = chain(&problem), "node cannot go on");
                if problem.exit() == Exit::Rebuild && rebuild::is_auto(config) {
                    rebuild::mark(config, self.host.node(), &chain(&problem))?;
                }
                // Leaderships cannot be handed over by a node that cannot write: the others take them once it is silent.
                self.hooks.stop();
                close_groups(&self.host, config).await;
                self.stop(Stop::Together, config).await;
                Err(problem)
            }
        }
    }

    async fn stop(self, stop: Stop, config: &Config) {
        let began = Instant::now();
        tracing::info!(?stop, "node stops");
        self.hooks.stop();
        if stop == Stop::Leave {
            let left = self.host.drain(config.stop.drain.0).await;
            tracing::info!(left, took = ?began.elapsed(), "leaderships handed over");
        }
        self.gateway.drain(config.stop.grace.0).await;
        self.service.close();
        self.tasks.end().await;
        close_groups(&self.host, config).await;
        tracing::info!(took = ?began.elapsed(), "node stopped");
    }
}

async fn close_groups(host: &Host, config: &Config) {
    let closed = timeout(config.stop.close.0, host.stop()).await;
    if closed.is_err() {
        tracing::warn!(limit = %config.stop.close, "groups did not close in time");
    }
}

fn gateway_secrets(config: &Config) -> Result<Secrets, Problem> {
    let files = &config.secrets;
    let failed = || "cannot read a secret".to_owned();
    let cluster = read_key(&files.cluster_secret).or_problem(Exit::Config, failed)?;
    Ok(Secrets {
        api_key: read_api_key(&files.api_key).or_problem(Exit::Config, failed)?,
        cluster: SecretBox::new(Box::new(*cluster.expose())),
    })
}

fn key_ring(config: &Config) -> Result<KeyRing, Problem> {
    let key = read_key(&config.secrets.master_key)
        .or_problem(Exit::Config, || "cannot read the master key".to_owned())?;
    Ok(KeyRing::new(
        MasterKey::new(FIRST_MASTER_KEY, *key.expose()),
        Vec::new(),
    ))
}

fn gateway_config(config: &Config) -> GatewayConfig {
    let files = &config.secrets;
    let tls = files.tls_certificate.clone().zip(files.tls_key.clone());
    GatewayConfig {
        http: config.listen.http,
        admin: config.listen.admin,
        tls: tls.map(|(certificate, key)| TlsConfig {
            certificate,
            key,
            reload_every: RELOAD,
        }),
        limits: config.gateway.clone(),
    }
}

/// Starts the groups. A node whose log is damaged is rebuilt first, if it may do that itself.
async fn start_or_rebuild(
    config: &Config,
    clock: Arc<dyn Clock>,
    service: &Arc<Service>,
) -> Result<Host, Problem> {
    let identity = match rebuild::pending(config)? {
        Some(old) => rebuild::rebuild(config, &old).await?,
        None => join::identity(config).await?,
    };
    let old = identity.clone();
    let problem = match start_host(config, identity, Arc::clone(&clock), service).await {
        Err(problem) if problem.exit() == Exit::Rebuild && rebuild::is_auto(config) => problem,
        other => return other,
    };
    tracing::error!(
        reason = chain(&problem),
        "this node's disk is not to be trusted"
    );
    rebuild::mark(config, old.node(), &chain(&problem))?;
    let new = rebuild::rebuild(config, &old).await?;
    start_host(config, new, clock, service).await
}

async fn start_host(
    config: &Config,
    identity: Identity,
    clock: Arc<dyn Clock>,
    service: &Arc<Service>,
) -> Result<Host, Problem> {
    let seed = |member: &Member| {
        let address = NodeAddress {
            peer: member.peer.clone(),
            http: member.http.clone(),
            admin: member.admin.clone(),
            zone: member.zone.clone(),
        };
        (NodeId(member.id), address)
    };
    let mut tuning = Tuning::default();
    tuning.state.memory_bytes = usize::try_from(config.storage.memory.0).unwrap_or(usize::MAX);
    tuning.log_bytes = config.storage.shard_log.0;
    tuning.scrub = ScrubPace {
        every: config.storage.scrub_every.0,
        bytes_per_second: config.storage.scrub_rate.0,
    };
    let host = HostConfig {
        folder: config.data.clone(),
        region: RegionId::new(config.cluster.region).expect("the configuration is validated"),
        region_name: config.cluster.region_name.clone(),
        shards: config.cluster.shards,
        seed: config.cluster.members.iter().map(seed).collect(),
        transport: transport::Config::new(config.listen.peer, identity),
        authority: authority(config)?,
        tuning,
    };
    let attach = |ground: raft::host::Ground| {
        service.attach(ground.directory, ground.peers);
        Attached {
            inbound: Arc::<Service>::clone(service),
            events: Arc::<Service>::clone(service),
        }
    };
    Host::start(host, clock, attach).await.map_err(|error| {
        let exit = match &error {
            StartError::Damaged(_) => {
                let text =
                    "this node may have lost what it promised: it neither votes nor acknowledges";
                return Problem::new(Exit::Rebuild, text)
                    .because(error)
                    .hint(rebuild::HINT);
            }
            StartError::OtherNode { .. } | StartError::Transport(_) | StartError::Config(_) => {
                Exit::Config
            }
            StartError::Memory(_)
            | StartError::Log(_)
            | StartError::State { .. }
            | StartError::Group { .. } => Exit::Fatal,
        };
        Problem::new(exit, "cannot start the groups").because(error)
    })
}

/// The authority, on a node that has its key.
fn authority(config: &Config) -> Result<Option<Arc<Authority>>, Problem> {
    let folder = &config.secrets.identity;
    if !folder.join("ca.key").exists() {
        return Ok(None);
    }
    Authority::load(folder, join::cluster_name(config)?)
        .map(|authority| Some(Arc::new(authority)))
        .or_problem(Exit::Config, || {
            "cannot use the cluster's authority".to_owned()
        })
}

fn problem_of(reason: Option<Fatal>) -> Problem {
    match reason {
        Some(fatal @ Fatal::Rebuild { .. }) => {
            Problem::new(Exit::Rebuild, "the cluster refuses this disk")
                .because(fatal)
                .hint(rebuild::HINT)
        }
        Some(fatal) => Problem::new(Exit::Fatal, "the node cannot go on").because(fatal),
        None => Problem::new(Exit::Fatal, "the groups ended"),
    }
}
