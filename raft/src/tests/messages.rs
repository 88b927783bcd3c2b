//! The bytes of the consensus engine's values: what is on disks and in other nodes stays readable, and nothing that a peer
//! sends makes a panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bytes::Bytes;
use openraft::raft::{StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse};

use crate::message::{self, BadMessage};
use crate::types::{
    AppendRequest, Data, Entry, Membership, Payload, SnapshotMeta, StoredMembership, Vote, log_id,
};

fn membership() -> Membership {
    let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
    let nodes: BTreeMap<u64, ()> = (1..=5).map(|node| (node, ())).collect();
    Membership::new(configs, nodes).unwrap()
}

fn vote() -> Vote {
    Vote {
        committed: true,
        ..Vote::new(7, 2)
    }
}

fn append() -> AppendRequest {
    let entry = |index, payload| Entry {
        log_id: log_id(7, 2, index),
        payload,
    };
    AppendRequest {
        vote: vote(),
        prev_log_id: Some(log_id(6, 1, 40)),
        entries: vec![
            entry(41, Payload::Blank),
            entry(42, Payload::Normal(Data(Bytes::from_static(b"\x01data")))),
            entry(43, Payload::Membership(membership())),
        ],
        leader_commit: None,
    }
}

fn mark() -> (Bytes, SnapshotMeta) {
    let applied = log_id(7, 2, 43);
    let stored = StoredMembership::new(Some(log_id(6, 1, 3)), membership());
    let bytes = message::encode_mark(Some(&applied), &stored);
    let meta = SnapshotMeta {
        last_log_id: Some(applied),
        last_membership: stored,
    };
    (bytes, meta)
}

/// Of each kind of message: its bytes, and a reader that says what was read.
fn all() -> Vec<(&'static str, Bytes, Reads)> {
    fn reads<T: Debug + 'static>(decode: fn(Bytes) -> Result<T, BadMessage>) -> Reads {
        Box::new(move |bytes| decode(bytes).map(|read| format!("{read:?}")).ok())
    }
    let (vote, last) = (vote(), Some(log_id(7, 2, 43)));
    let mut asks = VoteRequest::new(vote, last);
    asks.leadership_transfer = true;
    vec![
        (
            "append",
            message::encode_append(&append()),
            reads(message::decode_append),
        ),
        (
            "matching",
            message::encode_appended(&Ok(last)),
            reads(message::decode_appended),
        ),
        (
            "conflict",
            message::encode_appended(&Err(StreamAppendError::Conflict(log_id(6, 1, 40)))),
            reads(message::decode_appended),
        ),
        (
            "higher vote",
            message::encode_appended(&Err(StreamAppendError::HigherVote(vote))),
            reads(message::decode_appended),
        ),
        (
            "vote request",
            message::encode_vote_request(&asks),
            reads(message::decode_vote_request),
        ),
        (
            "vote response",
            message::encode_vote_response(&VoteResponse::new(vote, last, true)),
            reads(message::decode_vote_response),
        ),
        (
            "transfer",
            message::encode_transfer(&TransferLeaderRequest::new(vote, 3, last)),
            reads(message::decode_transfer),
        ),
        (
            "vote",
            message::encode_vote(&vote),
            reads(message::decode_vote),
        ),
        ("mark", mark().0, reads(message::decode_mark)),
        (
            "membership",
            message::encode_payload(&Payload::Membership(membership())),
            reads(message::decode_payload),
        ),
    ]
}

type Reads = Box<dyn Fn(Bytes) -> Option<String>>;

#[test]
fn what_was_written_is_read_again() {
    let request = message::decode_append(message::encode_append(&append())).unwrap();
    assert_eq!(format!("{request:?}"), format!("{:?}", append()));
    let (bytes, meta) = mark();
    assert_eq!(message::decode_mark(bytes).unwrap(), meta);
    assert_eq!(
        message::decode_vote(message::encode_vote(&vote())).unwrap(),
        vote()
    );
    for (name, bytes, read) in all() {
        assert!(read(bytes).is_some(), "{name}");
    }
}

#[test]
fn the_bytes_of_version_1_do_not_change() {
    let digest = |bytes: &Bytes| hex::encode(&blake3::hash(bytes).as_bytes()[..8]);
    let found: Vec<_> = all()
        .iter()
        .map(|(name, bytes, _)| format!("{name} {} {}", bytes.len(), digest(bytes)))
        .collect();
    assert_eq!(found, GOLDEN, "a new form needs a new version");
    // One to see by eye: version; term 7, node 2, committed.
    let vote = message::encode_vote(&vote());
    assert_eq!(hex::encode(vote), "010700000000000000020000000000000001");
    assert_eq!(message::encode_payload(&Payload::Blank).as_ref(), [0x80]);
}

/// Name, length and hash of each.
const GOLDEN: [&str; 10] = [
    "append 243 9909254633e68331",
    "matching 27 914667db75c377fe",
    "conflict 26 ebbc9bd55160aa83",
    "higher vote 19 9e560533998d44e5",
    "vote request 44 7c99882a57714c0c",
    "vote response 44 7c99882a57714c0c",
    "transfer 51 c982dfccf9dd64a4",
    "vote 18 ec65672740d9f7d4",
    "mark 155 bfe0a0495ed5a3f4",
    "membership 105 a8b98b50ad1a4344",
];

#[test]
fn what_is_cut_or_goes_on_is_no_message() {
    for (name, bytes, read) in all() {
        for length in 0..bytes.len() {
            assert_eq!(read(bytes.slice(..length)), None, "{name} cut at {length}");
        }
        let longer = [bytes.as_ref(), b"x"].concat();
        assert_eq!(read(longer.into()), None, "{name} goes on");
    }
}

#[test]
fn changed_bytes_are_an_error_or_another_message_but_no_panic() {
    for (_, bytes, read) in all() {
        for place in 0..bytes.len() {
            for value in [0, 1, 2, 0x7f, 0x80, 0x81, 0x82, 0xff] {
                let mut changed = bytes.to_vec();
                changed[place] = value;
                read(changed.into());
            }
        }
    }
}

#[test]
fn a_count_beyond_what_follows_takes_no_memory() {
    let mut bytes = message::encode_append(&append()).to_vec();
    let count = bytes.len() - message::encode_payload(&Payload::Membership(membership())).len();
    // The count of entries follows vote, previous entry and commit: 1 + 17 + 25 + 1 bytes.
    assert!(count > 44);
    bytes[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(message::decode_append(bytes.into()).is_err());
}

#[test]
fn an_entry_of_an_unknown_kind_is_an_error() {
    for bytes in [&b""[..], b"\x82", b"\xff\x00", b"\x81"] {
        assert!(message::decode_payload(Bytes::from_static(bytes)).is_err());
    }
}
