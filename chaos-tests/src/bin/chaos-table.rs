//! Prints the table of chaos-tests/README.md from files of results, which runs append to (`CHAOS_RESULTS`).

use std::io::Write as _;
use std::process::ExitCode;

use chaos_tests::report::table;

fn main() -> ExitCode {
    let files: Vec<_> = std::env::args_os().skip(1).collect();
    let mut lines = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
        match text.and_then(|text| table::read(&text)) {
            Ok(more) => lines.extend(more),
            Err(error) => {
                let file = file.display();
                drop(writeln!(std::io::stderr(), "{file}: {error}"));
                return ExitCode::FAILURE;
            }
        }
    }
    if files.is_empty() {
        drop(writeln!(
            std::io::stderr(),
            "usage: chaos-table RESULTS.jsonl..."
        ));
        return ExitCode::FAILURE;
    }
    let table = table::markdown(&lines);
    match std::io::stdout().write_all(table.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::FAILURE,
    }
}
