//! `pspd cluster status`, `pspd node join-token`, `scrub`, `compact` and `remove`: what is on the admin listeners.

use std::time::Duration;

use http::Method;
use model::status::{ClusterStatus, GroupStatus, NodeStatus, ReplicaStatus};
use serde_json::{Value, json};

use super::http::{Call, Http};
use super::report;
use super::table::Table;
use crate::cli::Output;
use crate::console;
use crate::exit::{Exit, OrProblem as _, Problem};

/// Path of a node's report.
const CLUSTER: &str = "/admin/v1/cluster";
/// Path that begins to read all data, and says what that has come to.
const SCRUB: &str = "/admin/v1/scrub";
/// Path that begins to rewrite all state, and says what that has come to.
const COMPACT: &str = "/admin/v1/compact";
/// Between two looks whether a node has ended.
const LOOK: Duration = Duration::from_millis(250);
/// So many looks in a row at a node that does nothing, though it was told to: it forgot.
const MAX_IDLE: u32 = 40;
/// Path that makes join tokens.
const TOKENS: &str = "/admin/v1/join-tokens";
/// Path of the nodes; a node's own is this, a slash and its id.
const NODES: &str = "/admin/v1/nodes";

/// Prints what all nodes that can be reached say together.
pub(super) async fn status(servers: &Http, output: Output) -> Result<(), Problem> {
    let whole = gather(servers).await?;
    let text = match output {
        Output::Json => serde_json::to_string_pretty(&whole)
            .or_problem(Exit::Failed, || "cannot print the status".to_owned())?,
        Output::Table => tables(&whole),
    };
    console::line(text.trim_end()).or_problem(Exit::Failed, || "cannot write the status".to_owned())
}

/// Has all nodes that can be reached read all of their data; prints a line of JSON for each.
pub(super) async fn scrub(servers: &Http) -> Result<(), Problem> {
    let whole = gather(servers).await?;
    for node in whole.nodes.iter().filter(|node| !node.admin.is_empty()) {
        let report = report_of(servers, &node.admin, Method::POST, SCRUB).await?;
        print(node.id, report)?;
    }
    Ok(())
}

/// Has one node after the other rewrite its state, so that never two are short of room for it, and waits for each; prints a line of JSON
/// for each.
pub(super) async fn compact(servers: &Http) -> Result<(), Problem> {
    let whole = gather(servers).await?;
    for node in whole.nodes.iter().filter(|node| !node.admin.is_empty()) {
        let begun = report_of(servers, &node.admin, Method::POST, COMPACT).await?;
        let mut idle = 0;
        let report = loop {
            let report = report_of(servers, &node.admin, Method::GET, COMPACT).await?;
            if report["passes"].as_u64() > begun["passes"].as_u64() {
                break report;
            }
            idle = if report["running"] == true {
                0
            } else {
                idle + 1
            };
            if idle > MAX_IDLE {
                let what = format!("node {} was started again meanwhile", node.id);
                return Err(Problem::new(Exit::Failed, what));
            }
            tokio::time::sleep(LOOK).await;
        };
        print(node.id, report)?;
    }
    Ok(())
}

async fn report_of(
    servers: &Http,
    server: &str,
    method: Method,
    path: &str,
) -> Result<Value, Problem> {
    let answer = servers.ask(server, &Call::new(method, path)).await?;
    serde_json::from_slice(&answer).or_problem(Exit::Failed, || "the answer is not JSON".to_owned())
}

fn print(node: u64, mut report: Value) -> Result<(), Problem> {
    report["node"] = node.into();
    console::line(&report.to_string())
        .or_problem(Exit::Failed, || "cannot write the result".to_owned())
}

async fn gather(servers: &Http) -> Result<ClusterStatus, Problem> {
    let mut reports = Vec::new();
    let mut asked: Vec<String> = Vec::new();
    let mut failed = Problem::new(Exit::Unavailable, "no server was named");
    let mut next: Vec<String> = servers.servers().to_vec();
    // Two rounds: the servers that were named, then those that they know of.
    while let Some(server) = next.pop() {
        asked.push(server.clone());
        match servers.ask(&server, &Call::new(Method::GET, CLUSTER)).await {
            Ok(body) => {
                let report: ClusterStatus = serde_json::from_slice(&body)
                    .or_problem(Exit::Failed, || {
                        format!("{server} does not report a cluster")
                    })?;
                for node in &report.nodes {
                    let known = |url: &String| url.trim_end_matches('/') == node.admin;
                    if !node.admin.is_empty() && !asked.iter().chain(&next).any(known) {
                        next.push(node.admin.clone());
                    }
                }
                reports.push(report);
            }
            Err(problem) => {
                console::note(&format!("no report from {server}"));
                failed = problem;
            }
        }
    }
    if reports.is_empty() {
        return Err(failed.hint("is the cluster running? is this its admin listener?"));
    }
    reports.sort_by_key(|report| report.node);
    Ok(report::merge(reports))
}

fn tables(whole: &ClusterStatus) -> String {
    let mut nodes = Table::new([
        "NODE",
        "ZONE",
        "PHASE",
        "REACHABLE",
        "LEADS",
        "RTT MS",
        "HTTP",
        "ADMIN",
        "PEER",
    ]);
    let dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
    for node in &whole.nodes {
        let NodeStatus {
            id,
            zone,
            phase,
            reachable,
            leads,
            rtt_micros,
            ..
        } = node;
        let rtt = rtt_micros.map(|micros| format!("{}.{:03}", micros / 1000, micros % 1000));
        nodes.row([
            id.to_string(),
            dash(zone),
            dash(phase),
            if *reachable { "yes" } else { "no" }.to_owned(),
            leads.to_string(),
            rtt.unwrap_or_else(|| "-".to_owned()),
            dash(&node.http),
            dash(&node.admin),
            dash(&node.peer),
        ]);
    }
    let mut groups = Table::new([
        "GROUP",
        "LEADER",
        "TERM",
        "LAST",
        "COMMITTED",
        "APPLIED",
        "SNAPSHOT",
        "LOG BYTES",
        "REPLICAS (LAG)",
    ]);
    for group in &whole.groups {
        groups.row([
            group.group.clone(),
            group
                .leader
                .map_or_else(|| "none".to_owned(), |node| node.to_string()),
            group.term.to_string(),
            group.last_index.to_string(),
            group.committed_index.to_string(),
            group.applied_index.to_string(),
            group.snapshot_index.to_string(),
            group.log_bytes.to_string(),
            replicas(group),
        ]);
    }
    let ClusterStatus {
        cluster,
        region,
        shards,
        ..
    } = whole;
    let head = format!("cluster {cluster}, region {region}, {shards} shards");
    format!("{head}\n\n{}\n{}", nodes.text(), groups.text())
}

fn replicas(group: &GroupStatus) -> String {
    let one = |replica: &ReplicaStatus| {
        let lag = replica
            .lag
            .map_or_else(|| "?".to_owned(), |lag| lag.to_string());
        let role = if replica.role == "voter" {
            ""
        } else {
            " learner"
        };
        format!("{}({lag}){role}", replica.node)
    };
    group.replicas.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Prints a token with which one new node may join.
pub(super) async fn join_token(servers: &Http, minutes: u32) -> Result<(), Problem> {
    let token = make_join_token(servers, minutes).await?;
    console::line(&token).or_problem(Exit::Failed, || "cannot write the token".to_owned())
}

/// A token with which one new node may join.
pub(crate) async fn make_join_token(servers: &Http, minutes: u32) -> Result<String, Problem> {
    let wish = json!({ "minutes": minutes });
    let call = Call::new(Method::POST, TOKENS).json(wish.to_string().into_bytes());
    let answer: Value = serde_json::from_slice(&servers.call(&call).await?)
        .or_problem(Exit::Failed, || "the answer is not JSON".to_owned())?;
    let token = answer
        .get("token")
        .and_then(Value::as_str)
        .map(str::to_owned);
    token.ok_or_else(|| Problem::new(Exit::Failed, "the answer holds no token"))
}

/// Takes a node out for good.
pub(super) async fn remove(servers: &Http, id: u64) -> Result<(), Problem> {
    let path = format!("{NODES}/{id}");
    servers.call(&Call::new(Method::DELETE, &path)).await?;
    console::line(&id.to_string()).or_problem(Exit::Failed, || "cannot write the result".to_owned())
}
