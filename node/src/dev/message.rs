//! What is printed when the cluster is ready: endpoints, key, and three lines that work as printed, in this order, in
//! any shell.

use std::path::Path;

use super::record::Record;

/// The text.
pub(super) fn ready(record: &Record, folder: &Path) -> String {
    let key = &record.api_key;
    let endpoint = |at: usize| {
        let at = at.min(record.nodes.len().saturating_sub(1));
        format!(
            "{}/api/v2/sessions",
            record.nodes.get(at).map_or("", |node| &node.http)
        )
    };
    let nodes: String = record
        .nodes
        .iter()
        .map(|node| {
            format!(
                "  node {}   {}   admin {}   process {}\n",
                node.id, node.http, node.admin, node.pid
            )
        })
        .collect();
    let first = quoted(&folder.join("first.json").display().to_string());
    let curl = format!("curl -sS -H 'Authorization: Bearer {key}'");
    format!(
        "PSP Edge is ready: {count} node{s} in {folder}\n\n{nodes}\n  API key  {key}\n\n\
         Store a session through one node, read it through another, list all through a third:\n\n\
         {curl} -H 'Content-Type: application/json' -d '{{\"name\":\"first\"}}' {create} | tee {first}; echo\n\n\
         {curl} {get}/$(grep -oE '[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}' {first} | head -n 1); echo\n\n\
         {curl} {list}; echo\n\n\
         `pspd cluster status --data {data}` shows the cluster. Ctrl-C stops it; its data stays.\n",
        count = record.nodes.len(),
        s = if record.nodes.len() == 1 { "" } else { "s" },
        folder = folder.display(),
        create = endpoint(0),
        get = endpoint(1),
        list = endpoint(2),
        data = quoted(&folder.display().to_string()),
    )
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::RecordedNode;
    use super::*;

    #[test]
    fn the_message_has_three_lines_to_paste() {
        let node = |id: u16| RecordedNode {
            id,
            pid: 7,
            http: format!("http://127.0.0.1:{}", 7300 + id),
            admin: format!("http://127.0.0.1:{}", 7400 + id),
        };
        let record = Record {
            api_key: "psp_k".into(),
            nodes: (0..3).map(node).collect(),
        };
        let text = ready(&record, Path::new("/a folder/it's"));
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("curl "))
            .collect();
        assert_eq!(lines.len(), 3);
        for (line, port) in lines.iter().zip(7300..) {
            assert!(
                line.contains("Bearer psp_k") && line.contains(&port.to_string()),
                "{line}"
            );
        }
        assert!(lines[0].contains(r"'/a folder/it'\''s/first.json'"));
    }
}
