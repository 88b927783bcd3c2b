//! The arguments of `pspd`, and which module carries out which command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::{Builder, Runtime};

use crate::config::{Config, Source};
use crate::exit::{Exit, OrProblem as _, Problem};
use crate::{client, dev, process, serve};

/// PSP Edge: a replicated store for browser sessions, with the Persistent Sessions Protocol as its API.
#[derive(Debug, Parser)]
#[command(name = "pspd", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node, in the foreground.
    Serve(ServeArgs),
    /// Run a whole region on this machine, one process a node, in the foreground.
    Dev(DevArgs),
    /// Store, read, list and remove sessions.
    Session(SessionArgs),
    /// Look at the cluster.
    Cluster(ClusterArgs),
    /// Let nodes in and take them out.
    Node(NodeArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file, TOML.
    #[arg(long)]
    config: PathBuf,
    /// One key of the configuration, as in `--set listen.http=0.0.0.0:7300`; wins over file and `PSPD_` variables.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Only read and check the configuration.
    #[arg(long)]
    check: bool,
    /// End when this process ends: the supervisor's id.
    #[arg(long, hide = true)]
    supervisor: Option<u32>,
}

/// `pspd dev`, or one of its commands.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DevArgs {
    #[command(subcommand)]
    pub(crate) command: Option<DevCommand>,
    #[command(flatten)]
    pub(crate) cluster: DevCluster,
}

/// The cluster that `pspd dev` runs.
#[derive(Clone, Debug, Args)]
pub(crate) struct DevCluster {
    /// How many nodes, 1 to 9. Three survive the loss of one.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) nodes: u16,
    /// Folder of everything: keys, certificates, disks, logs.
    #[arg(long, env = "PSP_DATA", default_value = dev::DEFAULT_FOLDER)]
    pub(crate) data: PathBuf,
    /// Node i (from 0) serves clients on 127.0.0.1:PORT+i, admin on PORT+100+i and other nodes on PORT+200+i.
    #[arg(long, default_value_t = 7300, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    pub(crate) port: u16,
    /// What the nodes log, in DATA/node-i/pspd.log.
    #[arg(long, default_value = "info,openraft=warn")]
    pub(crate) log: String,
    /// A setting for every node, as for `pspd serve`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevCommand {
    /// Start, stop, kill or wipe one node of a running `pspd dev`.
    Node(DevNodeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DevNodeArgs {
    /// What to do.
    pub(crate) verb: dev::Verb,
    /// Which node: its position, from 0.
    pub(crate) id: u16,
    /// Folder of the running `pspd dev`.
    #[arg(long, env = "PSP_DATA", default_value = dev::DEFAULT_FOLDER)]
    pub(crate) data: PathBuf,
}

/// Where a client's commands go. Without an endpoint, they go to the `pspd dev` that runs in `--data`.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// Any node, as in `http://127.0.0.1:7300`.
    #[arg(long, global = true, env = "PSP_ENDPOINT", value_name = "URL")]
    pub(crate) endpoint: Option<String>,
    /// Any node's admin listener, as in `http://127.0.0.1:7400`.
    #[arg(long, global = true, env = "PSP_ADMIN", value_name = "URL")]
    pub(crate) admin: Option<String>,
    /// File with the API key; else the variable `PSP_API_KEY`, else the key of `pspd dev`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// The API key. Not an argument on purpose: others would see it in the list of processes.
    #[arg(
        long = "internal-api-key",
        global = true,
        env = "PSP_API_KEY",
        hide = true,
        hide_env_values = true
    )]
    pub(crate) key: Option<String>,
    /// Folder of a running `pspd dev`.
    #[arg(long, global = true, env = "PSP_DATA", default_value = dev::DEFAULT_FOLDER)]
    pub(crate) data: PathBuf,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The form of a session's document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The protocol's own, version 2.
    Psp,
    /// Playwright's `storageState`.
    Playwright,
}

#[derive(Debug, Args)]
struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// Store a document as a new session, or over one; prints its id.
    Put {
        /// File with the document; `-` is standard input.
        file: PathBuf,
        /// Replace the fields of this session instead of making a new one.
        #[arg(long)]
        id: Option<String>,
        /// Only if the session still has this version, as in `1.7`.
        #[arg(long, requires = "id")]
        if_match: Option<String>,
        /// The document's form.
        #[arg(long, value_enum, default_value_t = Format::Psp)]
        format: Format,
    },
    /// Print a session's document.
    Get {
        /// The session.
        id: String,
        /// The form to print.
        #[arg(long, value_enum, default_value_t = Format::Psp)]
        format: Format,
    },
    /// List sessions.
    Ls {
        /// Only those with this tag.
        #[arg(long)]
        tag: Option<String>,
        /// Only those with this name.
        #[arg(long)]
        name: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// How to print them.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Remove sessions.
    Rm {
        /// Which.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Nodes, shards, leaders, terms, indexes and lag.
    Status {
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

#[derive(Debug, Args)]
struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Print a token with which one new node may join, once.
    JoinToken {
        /// How long the token is valid, in minutes.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1440))]
        minutes: u32,
    },
    /// Make the authority of a new cluster: `ca.crt` and `ca.key`. Once, on a machine that is kept safe.
    InitCa {
        /// The cluster's name, as in `cluster.name` of the nodes.
        #[arg(long)]
        cluster: String,
        /// Folder to write to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make the certificate of one of a cluster's first nodes; later ones join with a token.
    Issue {
        /// The cluster's name.
        #[arg(long)]
        cluster: String,
        /// Folder with the authority.
        #[arg(long)]
        ca: PathBuf,
        /// The node's id.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// How long it is valid, in days.
        #[arg(long, default_value_t = 825)]
        days: u32,
        /// Folder to write `node.crt`, `node.key` and `ca.crt` to: the node's `secrets.identity`.
        #[arg(long)]
        out: PathBuf,
        /// Write `ca.key` too, so that this node may admit others.
        #[arg(long)]
        may_admit: bool,
    },
    /// Have every node read all that it has stored, now, to find damage; print what has been found so far.
    Scrub,
    /// Have one node after the other rewrite its state, so that only what is current takes place on its disk, and wait for it; print what came
    /// of it. Scrub first: where damage lies, a node finds it then, and all at once.
    Compact,
    /// Take a node out of the cluster for good: its replicas go elsewhere, its id is never used again.
    Remove {
        /// The node's id, as `pspd cluster status` shows it.
        id: u64,
    },
}

/// Reads the arguments and carries the command out.
///
/// # Errors
/// What the process is to end with.
pub(crate) fn run() -> Result<(), Problem> {
    let cli = Cli::parse();
    process::forbid_core_files()
        .or_problem(Exit::Failed, || "cannot forbid core files".to_owned())?;
    // Fails only when it is chosen already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    match cli.command {
        Command::Serve(args) => run_node(args),
        Command::Dev(args) => single()?.block_on(dev::run(args)),
        Command::Session(args) => single()?.block_on(client::session(args.target, args.command)),
        Command::Cluster(args) => single()?.block_on(client::cluster(args.target, args.command)),
        Command::Node(args) => single()?.block_on(client::node(args.target, args.command)),
    }
}

fn run_node(args: ServeArgs) -> Result<(), Problem> {
    if let Some(supervisor) = args.supervisor {
        process::end_with(supervisor)
            .or_problem(Exit::Failed, || "cannot follow the supervisor".to_owned())?;
    }
    let config = Config::load(&Source::of_process(args.config, args.settings))?;
    if args.check {
        return Ok(());
    }
    crate::telemetry::start(&config.log)?;
    process::raise_open_files().or_problem(Exit::Failed, || {
        "cannot raise the limit of open files".to_owned()
    })?;
    // One worker alone needs no queues that others can steal from. What blocks has threads of its own all the same.
    raft::blocking::beside();
    let mut builder = match config.worker_threads.get() {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder
        .worker_threads(config.worker_threads.get())
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_name("pspd-worker")
        .enable_all()
        .build()
        .or_problem(Exit::Failed, || "cannot start the runtime".to_owned())?;
    let ended = runtime.block_on(serve::run(config));
    // Whatever is still blocked in a system call is not waited for.
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    ended
}

/// Threads for blocking work (snapshots, file checks): few, because it is rare and the disk is one.
const MAX_BLOCKING_THREADS: usize = 8;

/// The runtime of a supervisor or client: one thread, this one. The kernel ties a child's end to the thread that
/// started it, so that must be one that lives as long as the process.
fn single() -> Result<Runtime, Problem> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .or_problem(Exit::Failed, || "cannot start the runtime".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_target_may_be_named_before_or_after_the_command() {
        let data = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Cluster(cluster) => cluster.target.data,
            Command::Session(session) => session.target.data,
            _ => panic!("{line}"),
        };
        // As `pspd dev` prints it.
        assert_eq!(data("pspd cluster status --data d"), PathBuf::from("d"));
        assert_eq!(data("pspd cluster --data d status"), PathBuf::from("d"));
        assert_eq!(data("pspd session get i --data d"), PathBuf::from("d"));
        let default = PathBuf::from(dev::DEFAULT_FOLDER);
        assert_eq!(data("pspd session ls"), default);
    }

    #[test]
    fn dev_takes_numbers_or_a_command() {
        let cli = Cli::try_parse_from(["pspd", "dev", "--nodes", "5", "--port", "9000"]).unwrap();
        assert!(matches!(
            cli.command,
            Command::Dev(DevArgs { command: None, .. })
        ));
        let cli = Cli::try_parse_from(["pspd", "dev", "node", "kill", "2", "--data", "d"]).unwrap();
        assert!(matches!(
            cli.command,
            Command::Dev(DevArgs {
                command: Some(_),
                ..
            })
        ));
        assert!(Cli::try_parse_from(["pspd", "dev", "--nodes", "10"]).is_err());
    }
}
