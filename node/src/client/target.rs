//! Where a client's commands go: arguments, then variables, then the `dev.json` of a running `pspd dev`.

use secrecy::SecretString;

use super::http::Http;
use crate::cli::Target;
use crate::dev::Record;
use crate::exit::{Exit, OrProblem as _, Problem};
use crate::secrets;

const HINT: &str = "start a cluster with `pspd dev`, or name one with --endpoint and --key-file";

/// The gateways.
pub(super) fn sessions(target: &Target) -> Result<Http, Problem> {
    let record = Record::read(&target.data);
    let key = key(target, record.as_ref())?.ok_or_else(|| {
        Problem::new(Exit::Usage, "no API key").hint("--key-file FILE, or the variable PSP_API_KEY")
    })?;
    let servers = match (&target.endpoint, &record) {
        (Some(endpoint), _) => vec![endpoint.clone()],
        (None, Some(record)) => record.nodes.iter().map(|node| node.http.clone()).collect(),
        (None, None) => return Err(no_cluster(target)),
    };
    Http::new(servers, Some(key))
}

/// The admin listeners.
pub(super) fn admin(target: &Target) -> Result<Http, Problem> {
    let record = Record::read(&target.data);
    let key = key(target, record.as_ref())?;
    let servers = match (&target.admin, &record) {
        (Some(admin), _) => vec![admin.clone()],
        (None, Some(record)) => record.nodes.iter().map(|node| node.admin.clone()).collect(),
        (None, None) => return Err(no_cluster(target).hint("name an admin listener with --admin")),
    };
    Http::new(servers, key)
}

fn key(target: &Target, record: Option<&Record>) -> Result<Option<SecretString>, Problem> {
    if let Some(file) = &target.key_file {
        let key = secrets::read_api_key(file);
        return key
            .map(Some)
            .or_problem(Exit::Config, || "cannot read the API key".to_owned());
    }
    let key = target
        .key
        .as_ref()
        .or_else(|| record.map(|record| &record.api_key));
    Ok(key.map(|key| SecretString::from(key.clone())))
}

fn no_cluster(target: &Target) -> Problem {
    let text = format!("no cluster runs in {}", target.data.display());
    Problem::new(Exit::Unavailable, text).hint(HINT)
}
