//! The checksum, and the values served, against JavaScript itself: random documents through `node`.
//!
//! Needs `node` in the path, and fails without it: what is checked here cannot be checked otherwise.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

use bytes::Bytes;
use model::document::{Served, create, serve};
use model::id::{RegionId, SessionId, Slot, Version};
use model::time::UnixMillis;

use crate::random::Random;

const DOCUMENTS: usize = 10_000;

/// Prints, for each pair of lines (a body, and what we serve for it), the checksum of the body, then whether the served
/// document has that checksum, has a checksum that fits its own content, and has the body's values.
const SCRIPT: &str = r#"
const { createHash } = require("crypto");
const lines = require("fs").readFileSync(0, "utf8").split("\n");
const parts = ({ cookies, origins, indexedDB }) => JSON.stringify({ cookies, origins, indexedDB });
const hash = (text) => createHash("sha256").update(text).digest("hex");
let out = "";
for (let i = 0; i + 1 < lines.length; i += 2) {
  const body = JSON.parse(lines[i]);
  const served = JSON.parse(lines[i + 1]);
  body.cookies ??= [];
  body.origins ??= [];
  body.indexedDB ??= undefined;
  const checks = [
    served.checksum === hash(parts(body)),
    served.checksum === hash(parts(served)),
    JSON.stringify(served.unknown) === JSON.stringify(body.unknown),
  ];
  out += hash(parts(body)) + " " + checks.join(" ") + "\n";
}
process.stdout.write(out);
"#;

#[test]
fn checksums_are_those_of_javascript_for_ten_thousand_random_documents() {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut input = String::new();
    let mut expected = String::new();
    for _ in 0..DOCUMENTS {
        let body = random.document();
        let input_of_body = create(&Bytes::from(body.clone().into_bytes()))
            .unwrap_or_else(|error| panic!("seed {seed}: {error} in {body}"));
        let served = serve(&Served {
            id: SessionId::new(RegionId::new(1).unwrap(), Slot::wrapping(2), [7; 16]),
            version: Version {
                epoch: 1,
                revision: 1,
            },
            created: UnixMillis(0),
            updated: UnixMillis(0),
            expires: None,
            sections: &input_of_body.sections,
        });
        let served = String::from_utf8(served).unwrap();
        writeln!(input, "{body}\n{served}").unwrap();
        let checksum = hex::encode(input_of_body.sections.checksum());
        writeln!(expected, "{checksum} true true true").unwrap();
    }
    let printed = node(input);
    for (number, (printed, expected)) in printed.lines().zip(expected.lines()).enumerate() {
        assert_eq!(printed, expected, "seed {seed}, document {number}");
    }
    assert_eq!(printed.lines().count(), DOCUMENTS);
}

fn node(input: String) -> String {
    let mut child = Command::new("node")
        .args(["-e", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "`node` could not be started ({error}). This test compares our checksums with \
                 JavaScript's: install Node.js 18 or later, as `make test` does."
            )
        });
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "node failed: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
