//! What the gateway can be told. `node` reads it from a file; unknown keys are refused.
//!
//! Guarantees: every bound has a default that a small machine survives. Secrets are not in here: see
//! [`Secrets`], whose parts print as `***`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{SecretBox, SecretString};
use serde::{Deserialize, Deserializer};

/// Where the gateway listens, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address of the PSP listener (HTTP/1.1 and HTTP/2). Port 0 takes a free one.
    pub http: SocketAddr,
    /// Address of the admin listener (`/livez`, `/readyz`, `/metrics`, `/admin/v1/*`): plain HTTP/1.1 without
    /// credentials, for the operator's network only.
    pub admin: SocketAddr,
    /// Certificate for the PSP listener; without one it is plain, also for HTTP/2 by prior knowledge.
    pub tls: Option<TlsConfig>,
    /// Bounds.
    pub limits: LimitsConfig,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, 4100)),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 4200)),
            tls: None,
            limits: LimitsConfig::default(),
        }
    }
}

/// Files of the server's certificate, PEM. They are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// How often the files are looked at.
    #[serde(default = "ten_seconds", deserialize_with = "span")]
    pub reload_every: Duration,
}

/// Bounds of what clients can make the gateway hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Open connections; one more is accepted and closed at once.
    pub connections: usize,
    /// Requests being handled at a time; one more is answered 503 at once.
    pub requests: usize,
    /// Bytes of request and response bodies held at a time, over all requests; above it 503 at once.
    pub body_bytes: usize,
    /// Watches (WebSocket connections and event streams) open at a time.
    pub watches: usize,
    /// Sessions that one WebSocket connection may watch.
    pub subscriptions: usize,
    /// HTTP/2 streams of one connection.
    pub streams: u32,
    /// Header fields of one request; above it 431.
    pub headers: usize,
    /// Bytes of all header fields and of the target of one request; above it 431, for the target 414.
    pub header_bytes: usize,
    /// How long the head of a request may take, also the first on an idle HTTP/1.1 connection.
    #[serde(deserialize_with = "span")]
    pub header_timeout: Duration,
    /// How long a connection may be silent in both directions. Longer than any request takes.
    #[serde(deserialize_with = "span")]
    pub idle_timeout: Duration,
    /// How long a body may make no progress.
    #[serde(deserialize_with = "span")]
    pub body_idle_timeout: Duration,
    /// How long a body may take in all.
    #[serde(deserialize_with = "span")]
    pub body_timeout: Duration,
    /// How long a small request may take after its body is there.
    #[serde(deserialize_with = "span")]
    pub request_timeout: Duration,
    /// How long the largest may take; at most one minute, so that `not_after` stays within the model's bound.
    #[serde(deserialize_with = "span")]
    pub large_request_timeout: Duration,
    /// A watch that has nothing to say says so this often.
    #[serde(deserialize_with = "span")]
    pub heartbeat: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 16_384,
            requests: 1024,
            body_bytes: 192 * 1024 * 1024,
            watches: 8192,
            subscriptions: 64,
            streams: 128,
            headers: 64,
            header_bytes: 16 * 1024,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
            body_idle_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_mins(2),
            request_timeout: Duration::from_secs(10),
            large_request_timeout: Duration::from_mins(1),
            heartbeat: Duration::from_secs(15),
        }
    }
}

/// What must be known to no log: handed in apart from the configuration.
#[derive(Debug)]
pub struct Secrets {
    /// The one API key, until there are tenants.
    pub api_key: SecretString,
    /// Shared by all gateways of a cluster: authenticates consistency tokens and cursors.
    pub cluster: SecretBox<[u8; 32]>,
}

const fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// Reads `500ms`, `10s`, `2m` or `1h`.
fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_span(&text).ok_or_else(|| {
        serde::de::Error::custom(
            "a duration is a whole number and a unit, as in 500ms, 10s, 2m, 1h",
        )
    })
}

fn parse_span(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(parse_span("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_span("2m"), Some(Duration::from_mins(2)));
        for wrong in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "10 s",
            "99999999999999999999s",
            "9999999999999999999h",
        ] {
            assert_eq!(parse_span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_and_the_rest_has_defaults() {
        let config: GatewayConfig =
            serde_json::from_str(r#"{"limits": {"requests": 7, "heartbeat": "3s"}}"#)
                .expect("parses");
        assert_eq!(config.limits.requests, 7);
        assert_eq!(config.limits.heartbeat, Duration::from_secs(3));
        assert_eq!(
            config.limits.connections,
            LimitsConfig::default().connections
        );
        assert!(serde_json::from_str::<GatewayConfig>(r#"{"htpp": "127.0.0.1:1"}"#).is_err());
    }

    #[test]
    fn secrets_print_as_nothing() {
        let secrets = Secrets {
            api_key: "psp_very_secret".into(),
            cluster: SecretBox::new(Box::new([7; 32])),
        };
        assert!(!format!("{secrets:?}").contains("very_secret"));
    }
}
