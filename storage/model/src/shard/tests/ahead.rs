//! Updates made ahead of another that is not applied yet.

use super::*;

#[test]
fn an_update_made_ahead_of_another_holds_only_if_that_one_made_its_base() {
    let mut shard = shard();
    shard.create(session(1), content("a"));
    let ahead = |shard: &mut Shard, revision, after| {
        let request = shard.tag();
        let outcome = shard.apply(Command::Update {
            tenant: TENANT,
            session: session(1),
            request,
            idempotency: None,
            expected: version(revision),
            after,
            content: content("b"),
        });
        (request.id, outcome)
    };
    let (first, outcome) = ahead(&mut shard, 1, None);
    assert!(matches!(outcome, Outcome::Written { .. }));
    let (second, outcome) = ahead(&mut shard, 2, Some(first));
    assert!(matches!(outcome, Outcome::Written { .. }));
    // Version 3 is there, but made by another request than the one that this was made ahead of.
    let (_, outcome) = ahead(&mut shard, 3, Some(first));
    let current = version(3);
    assert_eq!(
        outcome,
        Outcome::Rejected(Rejection::VersionMismatch { current })
    );
    let (_, outcome) = ahead(&mut shard, 3, Some(second));
    assert!(matches!(outcome, Outcome::Written { .. }));
}
