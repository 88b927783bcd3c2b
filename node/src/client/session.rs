//! `pspd session put|get|ls|rm`.

use std::io::Read as _;
use std::path::Path;

use http::Method;
use serde_json::Value;

use super::http::{Call, Http};
use super::table::Table;
use crate::cli::{Format, Output, SessionCommand};
use crate::console;
use crate::exit::{Exit, OrProblem as _, Problem};

const SESSIONS: &str = "/api/v2/sessions";

/// Largest document that is read from a file, in bytes: as large as the store takes.
const MAX_FILE: u64 = model::limits::MAX_DOCUMENT_BYTES as u64;

pub(super) async fn run(cluster: &Http, command: SessionCommand) -> Result<(), Problem> {
    match command {
        SessionCommand::Put {
            file,
            id,
            if_match,
            format,
        } => {
            let body = read(&file)?;
            put(cluster, body, id.as_deref(), if_match.as_deref(), format).await
        }
        SessionCommand::Get { id, format } => get(cluster, &id, format).await,
        SessionCommand::Ls {
            tag,
            name,
            limit,
            output,
        } => {
            let filters = [("tag", tag), ("name", name)];
            list(cluster, &filters, limit, output).await
        }
        SessionCommand::Rm { ids } => {
            for id in ids {
                let path = path_of(&id)?;
                cluster.call(&Call::new(Method::DELETE, &path)).await?;
                say(&id)?;
            }
            Ok(())
        }
    }
}

async fn put(
    cluster: &Http,
    body: Vec<u8>,
    id: Option<&str>,
    if_match: Option<&str>,
    format: Format,
) -> Result<(), Problem> {
    let path = id.map_or_else(|| Ok(SESSIONS.to_owned()), path_of)? + query_of(format);
    let method = if id.is_some() {
        Method::PUT
    } else {
        Method::POST
    };
    let key = hex::encode(rand::random::<[u8; 16]>());
    let mut call = Call::new(method, &path)
        .json(body)
        .header("idempotency-key", key);
    if let Some(version) = if_match {
        call = call.header("if-match", format!("\"{}\"", version.trim_matches('"')));
    }
    let mut answer = cluster.call(&call).await;
    if matches!(&answer, Err(problem) if problem.exit() == Exit::Unknown) {
        // The same key: it is done once, whatever became of the first try.
        answer = cluster.call(&call).await;
    }
    let answer: Value = serde_json::from_slice(&answer?)
        .or_problem(Exit::Failed, || "the answer is not JSON".to_owned())?;
    let id = answer.get("id").and_then(Value::as_str);
    say(id.ok_or_else(|| Problem::new(Exit::Failed, "the answer names no session"))?)
}

async fn get(cluster: &Http, id: &str, format: Format) -> Result<(), Problem> {
    let path = path_of(id)? + query_of(format);
    let mut body = cluster.call(&Call::new(Method::GET, &path)).await?;
    body.push(b'\n');
    console::out(&body).or_problem(Exit::Failed, || "cannot write the document".to_owned())
}

async fn list(
    cluster: &Http,
    filters: &[(&str, Option<String>)],
    limit: u32,
    output: Output,
) -> Result<(), Problem> {
    let mut path = format!("{SESSIONS}?limit={limit}");
    for (name, value) in filters {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={}", percent(value)));
        }
    }
    let body = cluster.call(&Call::new(Method::GET, &path)).await?;
    if output == Output::Json {
        return say(&String::from_utf8_lossy(&body));
    }
    let answer: Value = serde_json::from_slice(&body)
        .or_problem(Exit::Failed, || "the answer is not JSON".to_owned())?;
    let mut table = Table::new([
        "ID", "NAME", "VERSION", "COOKIES", "ORIGINS", "BYTES", "UPDATED",
    ]);
    for session in answer
        .get("sessions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        table.row(
            [
                "id",
                "name",
                "version",
                "cookieCount",
                "originCount",
                "size",
                "updated",
            ]
            .map(|field| match session.get(field) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => "-".to_owned(),
                Some(other) => other.to_string(),
            }),
        );
    }
    console::out(table.text().as_bytes())
        .or_problem(Exit::Failed, || "cannot write the list".to_owned())?;
    if let Some(total) = answer.get("total").and_then(Value::as_u64)
        && total > u64::from(limit)
    {
        console::note(&format!("{total} sessions; --limit shows more of them"));
    }
    Ok(())
}

fn say(text: &str) -> Result<(), Problem> {
    console::line(text).or_problem(Exit::Failed, || "cannot write the result".to_owned())
}

fn read(file: &Path) -> Result<Vec<u8>, Problem> {
    let name = || format!("cannot read {}", file.display());
    let mut body = Vec::new();
    let length = if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_FILE + 1)
            .read_to_end(&mut body)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut body))
    };
    let length = length.or_problem(Exit::Usage, name)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > MAX_FILE {
        let text = format!("{} is larger than a session may be", file.display());
        return Err(Problem::new(Exit::Refused, text).hint("at most 50 MiB"));
    }
    Ok(body)
}

/// The path of a session; an id has nothing but letters, digits and hyphens.
fn path_of(id: &str) -> Result<String, Problem> {
    if !id.is_empty()
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        Ok(format!("{SESSIONS}/{id}"))
    } else {
        Err(Problem::new(
            Exit::Usage,
            format!("`{}` is not a session's id", id.escape_default()),
        ))
    }
}

const fn query_of(format: Format) -> &'static str {
    match format {
        Format::Psp => "",
        Format::Playwright => "?format=playwright",
    }
}

fn percent(text: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_leave_its_path() {
        assert!(path_of("../../admin").is_err());
        assert!(path_of("").is_err());
        assert!(path_of("0000-aZ9").is_ok());
    }

    #[test]
    fn a_filter_is_one_value_whatever_it_holds() {
        assert_eq!(percent("a b&c=\u{e9}"), "a%20b%26c%3D%C3%A9");
    }
}
