//! Logs: one JSON object a line on standard error, and a panic that is logged before it ends what it ends.
//!
//! Fields, not prose; lower case; never a session's content or a credential. The request id that a client got is in
//! the field `request`.

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;
use crate::exit::{Exit, OrProblem as _, Problem};

/// Installs the process's one subscriber and panic hook.
///
/// # Errors
/// When the filter is not one, or a subscriber is installed already.
pub(crate) fn start(config: &LogConfig) -> Result<(), Problem> {
    let filter = EnvFilter::builder()
        .parse(&config.filter)
        .or_problem(Exit::Config, || "log.filter is not a filter".to_owned())?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would be said on standard error, which cannot be written just now: on a full disk that panics, and the hook below
        // with it.
        .log_internal_errors(false)
        .try_init()
        .or_problem(Exit::Failed, || "cannot start logging".to_owned())?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    // The text is an invariant in words, by the rules of this house.
    let text = info.payload_as_str().unwrap_or("no text");
    let backtrace = Backtrace::capture();
    tracing::error!(%place, text, %backtrace, "panic");
}
