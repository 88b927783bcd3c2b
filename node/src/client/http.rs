//! One HTTP client for all commands: credentials, time limits, and what a status means to a person.
//!
//! When a node cannot be reached, the next one is asked. A request that may have been carried out is repeated only
//! with an `Idempotency-Key` or when repeating it changes nothing.

use std::time::Duration;

use http::{Method, StatusCode};
use reqwest::{Client, RequestBuilder, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::exit::{Exit, OrProblem as _, Problem};

/// Longest time for one request to one node.
const REQUEST: Duration = Duration::from_secs(65);
/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(2);

/// A client of one cluster.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    servers: Vec<String>,
    key: Option<SecretString>,
}

/// A request, before it has a server.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl<'a> Call<'a> {
    pub(crate) const fn new(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn json(self, body: Vec<u8>) -> Self {
        Self { body, ..self }.header("content-type", "application/json")
    }
}

impl Http {
    /// A client that asks these servers, in order.
    pub(crate) fn new(servers: Vec<String>, key: Option<SecretString>) -> Result<Self, Problem> {
        let client = Client::builder()
            .timeout(REQUEST)
            .connect_timeout(CONNECT)
            .no_proxy()
            .build()
            .or_problem(Exit::Failed, || "cannot make an HTTP client".to_owned())?;
        let servers = servers
            .into_iter()
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        Ok(Self {
            client,
            servers,
            key,
        })
    }

    /// The servers.
    pub(crate) fn servers(&self) -> &[String] {
        &self.servers
    }

    /// Asks the first server that can be reached; the body of a success.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, Problem> {
        let mut last = Problem::new(Exit::Unavailable, "no server was named");
        for server in &self.servers {
            match self.ask(server, call).await {
                Err(problem) if problem.exit() == Exit::Unavailable => last = problem,
                ended => return ended,
            }
        }
        Err(last.hint("is the cluster running? `pspd cluster status` shows what is"))
    }

    /// Asks one server; the body of a success.
    pub(crate) async fn ask(&self, server: &str, call: &Call<'_>) -> Result<Vec<u8>, Problem> {
        let request = self.request(server, call);
        let response = request.send().await.map_err(|error| {
            Problem::new(exit_of(&error), format!("no answer from {server}"))
                .because(error.without_url())
        })?;
        read(response).await
    }

    fn request(&self, server: &str, call: &Call<'_>) -> RequestBuilder {
        let url = format!("{server}{}", call.path);
        let mut request = self.client.request(call.method.clone(), url);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose_secret());
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if call.body.is_empty() {
            request
        } else {
            request.body(call.body.clone())
        }
    }
}

/// Whether a request that got no answer may have been carried out.
fn exit_of(error: &reqwest::Error) -> Exit {
    if error.is_connect() || error.is_builder() {
        Exit::Unavailable
    } else {
        Exit::Unknown
    }
}

async fn read(response: Response) -> Result<Vec<u8>, Problem> {
    let status = response.status();
    let bytes = response.bytes().await.map_err(|error| {
        Problem::new(Exit::Unknown, "the answer broke off").because(error.without_url())
    })?;
    if status.is_success() {
        return Ok(bytes.to_vec());
    }
    let exit = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Exit::NotFound,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Exit::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => Exit::Unknown,
        status if status.is_client_error() => Exit::Refused,
        _ => Exit::Failed,
    };
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let said = |field: &str| body.get(field).and_then(Value::as_str).map(str::to_owned);
    let text = said("error").unwrap_or_else(|| "no reason was given".to_owned());
    let problem = Problem::new(exit, format!("{}: {text}", status.as_u16()));
    Err(match (said("code"), said("requestId")) {
        (code, Some(request)) => problem.hint(format!(
            "code {}, request {request} in the node's log",
            code.as_deref().unwrap_or("none")
        )),
        (_, None) => problem,
    })
}
