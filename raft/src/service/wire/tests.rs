//! Frames: golden bytes, there and back, and any bytes at all.

use super::*;
use model::id::{NodeId, RequestId};
use model::service::{Consistency, Refused};
use proptest::prelude::*;

fn session() -> SessionId {
    SessionId::from_bytes([7; 16])
}

fn write() -> Request {
    let request = WriteRequest {
        tenant: TenantId(1),
        session: session(),
        request: RequestId([9; 16]),
        not_after: UnixMillis(1000),
        op: WriteOp::Put(Blob(Bytes::from_static(b"{\"name\":\"x\"}"))),
        if_match: Some(vec![Version::FIRST]),
        idempotency: None,
        want_document: true,
    };
    Request::Write(request, Duration::from_secs(2))
}

fn stored() -> Stored {
    Stored {
        session: session(),
        version: Version::FIRST,
        created: UnixMillis(1),
        updated: UnixMillis(2),
        expires: Some(UnixMillis(3)),
        sections: model::document::create(&Bytes::from_static(b"{\"name\":\"x\"}"))
            .unwrap()
            .sections,
    }
}

fn replies() -> Vec<Reply> {
    vec![
        Reply::Written(Box::new(WriteReply {
            session: session(),
            version: Version::FIRST,
            stored: Some(stored()),
            clean: Some(CleanReport {
                removed: 1,
                remaining: 2,
            }),
            replayed: true,
        })),
        Reply::Read(ReadReply::Found {
            stored: Box::new(stored()),
            staleness: Some(Duration::from_millis(5)),
        }),
        Reply::Read(ReadReply::Unchanged {
            version: Version::FIRST,
            staleness: None,
        }),
        Reply::Counted(7),
        Reply::Listed(Part::default()),
        Reply::Failed(TryError::NotLeader(Some(NodeId(3)))),
        Reply::Failed(TryError::Refused(Refused::NotFound)),
    ]
}

fn requests() -> Vec<Request> {
    vec![
        write(),
        Request::Read(ReadRequest {
            tenant: TenantId(1),
            session: session(),
            consistency: Consistency::Linearizable,
            known: vec![Version::FIRST],
            timeout: Duration::from_secs(1),
        }),
        Request::Count(TenantId(1), Duration::from_secs(1)),
        Request::List(PartRequest {
            tenant: TenantId(1),
            after: Some(session()),
            skip: 3,
            limit: 4,
            tag: Some("t".to_owned()),
            name: None,
            scan: 5,
            timeout: Duration::from_secs(1),
        }),
    ]
}

#[test]
fn frames_have_these_bytes() {
    let requests = requests().into_iter().map(Request::encode);
    let replies = replies().into_iter().skip(2).map(Reply::encode);
    let frames: Vec<String> = requests.chain(replies).map(hex::encode).collect();
    assert_eq!(
        frames,
        [
            "01000000300300010707070707070707070707070707070709090909090909090909090909090909fbe803\
             020001010101000102007b226e616d65223a2278227d",
            "010000001903010107070707070707070707070707070707000101010100",
            "01000000050302010100",
            "010000001d0303010107070707070707070707070707070707030401017400050100",
            "01000000050302010100",
            "0100000003030307",
            "010000000703040000000000",
            "01000000050305020103",
            "010000000403050000",
        ]
    );
}

#[test]
fn frames_come_back_as_they_were() {
    for request in requests() {
        assert_eq!(Request::decode(&request.clone().encode()), Ok(request));
    }
    for reply in replies() {
        let bytes = reply.clone().encode();
        let back = Reply::decode(&bytes).unwrap();
        assert_eq!(format!("{back:?}"), format!("{reply:?}"));
        assert_eq!(back.encode(), bytes);
    }
}

#[test]
fn a_frame_that_is_cut_or_of_another_version_is_refused() {
    for frame in requests().into_iter().map(Request::encode) {
        // A body may be cut without being noticed here: the transport checks frames, and JSON its own end.
        for length in 0..frame.len().min(30) {
            assert!(Request::decode(&frame.slice(..length)).is_err());
        }
        let mut other = frame.to_vec();
        other[0] = 2;
        assert_eq!(Request::decode(&Bytes::from(other)), Err(NotUnderstood));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read(bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        let _request = Request::decode(&bytes);
        let _reply = Reply::decode(&bytes);
    }

    #[test]
    fn any_changed_frame_is_refused_or_read(which in 0..10_usize, at: usize, byte: u8) {
        let frames: Vec<Bytes> = requests()
            .into_iter()
            .map(Request::encode)
            .chain(replies().into_iter().map(Reply::encode))
            .collect();
        let mut frame = frames[which % frames.len()].to_vec();
        let at = at % frame.len();
        frame[at] = byte;
        let frame = Bytes::from(frame);
        let _request = Request::decode(&frame);
        let _reply = Reply::decode(&frame);
    }
}
