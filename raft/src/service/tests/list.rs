//! Lists: pages, filters, cursors, bounds.

use std::collections::BTreeSet;

use model::service::{ListReply, ListRequest};

use super::*;
use crate::service::testing::FakeRegion;

fn listing(limit: usize) -> ListRequest {
    ListRequest {
        tenant: TENANT,
        after: None,
        offset: 0,
        limit,
        tag: None,
        name: None,
        timeout: Duration::from_secs(5),
    }
}

async fn list(region: &FakeRegion, node: u64, request: ListRequest) -> ListReply {
    region.service(node).list(request).await.unwrap()
}

async fn filled(region: &FakeRegion, count: usize) -> BTreeSet<SessionId> {
    let mut all = BTreeSet::new();
    for number in 0..count {
        let tag = if number % 2 == 0 { "even" } else { "odd" };
        let body = format!(r#"{{"name":"n{}","tags":["{tag}"]}}"#, number % 5);
        all.insert(created(region, &body).await);
    }
    all
}

async fn pages(region: &FakeRegion, node: u64, request: ListRequest) -> Vec<SessionId> {
    let mut request = request;
    let mut found = Vec::new();
    for _ in 0..1000 {
        let page = list(region, node, request.clone()).await;
        found.extend(page.sessions.iter().map(|row| row.session));
        if page.next.is_none() {
            return found;
        }
        request.after = page.next;
        request.offset = 0;
    }
    panic!("the pages do not end");
}

#[tokio::test]
async fn pages_give_every_session_once_in_order_at_every_node() {
    let region = region(3, 2);
    let all = filled(&region, 40).await;
    let in_order: Vec<_> = all.iter().copied().collect();
    for node in 1..=3 {
        let whole = list(&region, node, listing(1000)).await;
        assert_eq!((whole.total, whole.sessions.len()), (40, 40));
        assert_eq!(whole.next, None);
        for limit in [1, 7, 39, 40] {
            assert_eq!(pages(&region, node, listing(limit)).await, in_order);
        }
        for offset in [0, 3, 17, 39, 40, 99] {
            let request = ListRequest {
                offset,
                ..listing(1000)
            };
            let rest = pages(&region, node, request).await;
            assert_eq!(rest, in_order[offset.min(40)..]);
        }
    }
    let none = ListRequest {
        tenant: TenantId(9),
        ..listing(10)
    };
    let none = list(&region, 3, none).await;
    assert_eq!((none.total, none.sessions.len(), none.next), (0, 0, None));
    assert_eq!(list(&region, 1, listing(0)).await.total, 40);
}

#[tokio::test]
async fn filters_find_by_tag_and_by_name() {
    let region = region(2, 1);
    filled(&region, 20).await;
    for node in 1..=2 {
        let odd = ListRequest {
            tag: Some("odd".to_owned()),
            ..listing(1000)
        };
        let page = list(&region, node, odd.clone()).await;
        assert_eq!((page.total, page.sessions.len()), (10, 10));
        assert!(
            page.sessions
                .iter()
                .all(|row| row.summary.tags == ["odd".to_owned()])
        );
        let both = ListRequest {
            name: Some("n3".to_owned()),
            ..odd
        };
        assert_eq!(list(&region, node, both.clone()).await.total, 2);
        let second = ListRequest { offset: 1, ..both };
        assert_eq!(list(&region, node, second).await.sessions.len(), 1);
    }
}

#[tokio::test]
async fn a_bounded_scan_ends_a_page_early_and_goes_on() {
    let config = ServiceConfig {
        list_scan: 3,
        ..config()
    };
    let region = FakeRegion::new(1, 1, 3, &config);
    filled(&region, 20).await;
    let odd = ListRequest {
        tag: Some("odd".to_owned()),
        ..listing(1000)
    };
    assert!(list(&region, 1, odd.clone()).await.sessions.len() <= 3);
    assert_eq!(pages(&region, 1, odd).await.len(), 10);
}

#[tokio::test]
async fn deleted_sessions_are_not_listed_and_expired_ones_are_marked() {
    let region = region(1, 1);
    let at = region.clock.now().plus(Duration::from_secs(5));
    let at = model::document::format_date(at);
    let short = created(
        &region,
        &format!(r#"{{"timestamps":{{"expires":"{at}"}}}}"#),
    )
    .await;
    let gone = created(&region, "{}").await;
    let request = write(&region, gone, WriteOp::Delete);
    region.service(1).write(request).await.unwrap();
    let page = list(&region, 1, listing(10)).await;
    assert_eq!((page.total, page.sessions.len()), (1, 1));
    assert!(!page.sessions[0].expired);
    region.clock.advance(Duration::from_secs(6));
    let page = list(&region, 1, listing(10)).await;
    assert_eq!(page.sessions[0].session, short);
    assert!(page.sessions[0].expired);
}
