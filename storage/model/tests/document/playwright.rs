//! Playwright's storage state there and back: equal for every state, also when a client of the protocol changed it.

use bytes::Bytes;
use model::document::playwright::{
    create_playwright, from_playwright, put_playwright, to_playwright,
};
use model::document::{DocumentError, Sections, Served, clean, create, patch, put, serve};
use model::id::{RegionId, SessionId, Slot, Version};
use model::time::UnixMillis;

use crate::random::Random;

/// The example of the protocol's page on Playwright.
const OBSERVED: &str = r#"{"cookies":[{"name":"persist","value":"1","domain":"localhost","path":"/","expires":1795448396.686296,"httpOnly":false,"secure":false,"sameSite":"Lax"},{"name":"chips","value":"1","domain":"localhost","path":"/","expires":-1,"httpOnly":false,"secure":true,"sameSite":"None","partitionKey":"http://localhost","_crHasCrossSiteAncestor":false}],"origins":[{"origin":"http://localhost:4100","localStorage":[{"name":"k","value":"v"}],"indexedDB":[{"name":"db","version":3,"stores":[{"name":"inline","autoIncrement":false,"keyPath":"id","records":[{"valueEncoded":{"o":[{"k":"id","v":1},{"k":"when","v":{"d":"1970-01-01T00:00:00.000Z"}},{"k":"bytes","v":{"ta":{"b":"AQID","k":"ui8"}}},{"k":"big","v":{"bi":"10"}},{"k":"nan","v":{"v":"NaN"}}],"id":1}}],"indexes":[{"name":"by","keyPathArray":["x","y"],"multiEntry":false,"unique":false}]},{"name":"out","autoIncrement":true,"records":[{"key":1,"value":"plain"},{"keyEncoded":{"d":"1970-01-01T00:00:00.007Z"},"valueEncoded":{"d":"1970-01-01T00:00:00.005Z"}}],"indexes":[]}]}],"opfs":[{"path":"f.txt","type":"file","base64":"aGVsbG8="}]}],"credentials":[{"id":"x"}]}"#;

fn imported(state: &str) -> Sections {
    create_playwright(&Bytes::copy_from_slice(state.as_bytes()))
        .unwrap()
        .sections
}

fn exported(sections: &Sections) -> String {
    String::from_utf8(to_playwright(sections).unwrap()).unwrap()
}

fn served(sections: &Sections) -> String {
    let served = Served {
        id: SessionId::new(RegionId::new(1).unwrap(), Slot::wrapping(2), [7; 16]),
        version: Version {
            epoch: 1,
            revision: 1,
        },
        created: UnixMillis(0),
        updated: UnixMillis(0),
        expires: None,
        sections,
    };
    String::from_utf8(serve(&served)).unwrap()
}

fn changed(sections: &Sections, body: &'static str) -> Sections {
    patch(sections, &Bytes::from_static(body.as_bytes()))
        .unwrap()
        .sections
}

#[test]
fn the_observed_state_comes_back_and_is_sensible_in_between() {
    let sections = imported(OBSERVED);
    assert_eq!(exported(&sections), OBSERVED);
    let document = served(&sections);
    for part in [
        r#""partitionKey":"http://localhost"}],"origins":[{"origin":"http://localhost:4100","localStorage":[{"key":"k","value":"v"}]}],"#,
        r#""indexedDB":[{"origin":"http://localhost:4100","name":"db","version":3,"objectStores":[{"name":"inline","autoIncrement":false,"keyPath":"id","records":[{"value":{"id":1,"when":"1970-01-01T00:00:00.000Z","bytes":"AQID","big":"10","nan":null},"valueEncoded":"#,
        r#""indexes":[{"name":"by","keyPath":["x","y"],"multiEntry":false,"unique":false}]},{"name":"out","autoIncrement":true,"records":[{"key":1,"value":"plain"},{"key":"1970-01-01T00:00:00.007Z","keyEncoded":"#,
        r#""source":{"type":"playwright","captureMethod":"storage-state"}"#,
        r#""playwright":{"cookies":[{"name":"chips","domain":"localhost","path":"/","partitionKey":"http://localhost","extra":{"_crHasCrossSiteAncestor":false}}],"origins":[{"origin":"http://localhost:4100","extra":{"opfs":[{"path":"f.txt","type":"file","base64":"aGVsbG8="}]}}],"extra":{"credentials":[{"id":"x"}]}}"#,
    ] {
        assert!(document.contains(part), "{part} in {document}");
    }
}

#[test]
fn random_states_come_back_as_they_were() {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let mut current = Sections::default();
    for round in 0..8_000 {
        let state = random.state(round % 4 > 0);
        let sections = imported(&state);
        assert_eq!(exported(&sections), state, "seed {seed}, round {round}");
        // As the body of an ordinary change.
        let body = from_playwright(&Bytes::from(state.clone().into_bytes())).unwrap();
        let replaced = put(&current, &body.into()).unwrap();
        assert_eq!(
            exported(&replaced.sections),
            state,
            "seed {seed}, round {round}"
        );
        // In place of what was there, and through storage.
        let replaced = put_playwright(&current, &Bytes::from(state.clone().into_bytes())).unwrap();
        current = Sections::decode(&replaced.sections.encode().into()).unwrap();
        assert_eq!(exported(&current), state, "seed {seed}, round {round}");
        assert_eq!(current.checksum(), sections.checksum());
        // Through the hands of a client that stores what it got.
        let again = put(
            &Sections::default(),
            &Bytes::from(served(&sections).into_bytes()),
        )
        .unwrap();
        assert_eq!(
            exported(&again.sections),
            state,
            "seed {seed}, round {round}"
        );
    }
}

#[test]
fn states_of_playwright_itself_leave_few_notes() {
    let seed = Random::fresh_seed();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    for _ in 0..1000 {
        let state = random.state(false);
        let document = served(&imported(&state));
        assert!(!document.contains("asIs"), "seed {seed}: {document}");
    }
}

#[test]
fn what_a_client_changes_comes_out_changed_and_the_rest_stays() {
    let sections = imported(OBSERVED);
    let cookies = changed(
        &sections,
        r#"{"cookies":[{"name":"chips","value":"2","domain":"localhost","path":"/","partitionKey":"http://localhost","secure":true,"sameSite":"none"},{"name":"new","value":"3","domain":".example.com"}]}"#,
    );
    let state = exported(&cookies);
    assert!(state.starts_with(r#"{"cookies":[{"name":"chips","value":"2","domain":"localhost","path":"/","partitionKey":"http://localhost","secure":true,"sameSite":"None","expires":-1,"httpOnly":false,"_crHasCrossSiteAncestor":false},{"name":"new","value":"3","domain":".example.com","path":"/","expires":-1,"httpOnly":false,"secure":false,"sameSite":"Lax"}],"origins""#), "{state}");
    assert_eq!(
        state.split_once("\"origins\"").unwrap().1,
        OBSERVED.split_once("\"origins\"").unwrap().1
    );

    let storage = changed(
        &sections,
        r#"{"origins":[{"origin":"http://localhost:4100","localStorage":{"k":"w"}},{"origin":"https://b.example","localStorage":[]}]}"#,
    );
    let state = exported(&storage);
    assert!(
        state.contains(r#""localStorage":[{"name":"k","value":"w"}],"indexedDB":[{"name":"db""#),
        "{state}"
    );
    assert!(state.ends_with(r#""opfs":[{"path":"f.txt","type":"file","base64":"aGVsbG8="}]},{"origin":"https://b.example","localStorage":[]}],"credentials":[{"id":"x"}]}"#), "{state}");

    let records = changed(
        &sections,
        r#"{"indexedDB":[{"origin":"http://localhost:4100","name":"db","version":3,"objectStores":[{"name":"out","keyPath":null,"autoIncrement":true,"indexes":[],"records":[{"key":"1970-01-01T00:00:00.007Z","keyEncoded":{"d":"1970-01-01T00:00:00.007Z"},"value":"changed","valueEncoded":{"d":"1970-01-01T00:00:00.005Z"}}]}]}]}"#,
    );
    let state = exported(&records);
    assert!(state.contains(r#""stores":[{"name":"out","autoIncrement":true,"indexes":[],"records":[{"keyEncoded":{"d":"1970-01-01T00:00:00.007Z"},"value":"changed"}]}]"#), "{state}");
}

#[test]
fn a_cookie_that_is_gone_leaves_no_value_behind() {
    let state = OBSERVED
        .replace("\"1\",\"domain\"", "\"sekret\",\"domain\"")
        .replace("-1", "5");
    let (cleaned, report) = clean(&imported(&state), UnixMillis(9_999_999_999_999)).unwrap();
    assert_eq!((report.removed, report.remaining), (2, 0));
    assert!(!served(&cleaned.sections).contains("sekret"));
    assert!(exported(&cleaned.sections).starts_with("{\"cookies\":[],"));
}

#[test]
fn a_document_that_playwright_never_saw_becomes_a_state_that_it_takes() {
    let body = r#"{"cookies":[{"name":"a","value":"b","domain":"x"},{"name":"lost","value":"no domain"}],
        "origins":[{"origin":"https://x","localStorage":{"k":"v"},"sessionStorage":[]},{"localStorage":[]}],
        "indexedDB":[{"origin":"https://x","name":"d","objectStores":[{"name":"s","keyPath":"id","records":[{"key":1,"value":{"id":1}}]}]},
                     {"origin":"https://y","name":"e"}]}"#;
    let sections = create(&Bytes::from_static(body.as_bytes()))
        .unwrap()
        .sections;
    assert_eq!(
        exported(&sections),
        concat!(
            r#"{"cookies":[{"name":"a","value":"b","domain":"x","path":"/","expires":-1,"httpOnly":false,"secure":false,"sameSite":"Lax"}],"#,
            r#""origins":[{"origin":"https://x","localStorage":[{"name":"k","value":"v"}],"indexedDB":[{"name":"d","stores":[{"name":"s","keyPath":"id","records":[{"value":{"id":1}}],"autoIncrement":false,"indexes":[]}],"version":1}]},"#,
            r#"{"origin":"https://y","localStorage":[],"indexedDB":[{"name":"e","version":1,"stores":[]}]}]}"#
        )
    );
    assert_eq!(
        exported(&Sections::default()),
        r#"{"cookies":[],"origins":[]}"#
    );
}

#[test]
fn notes_that_are_none_are_passed_over() {
    for notes in [
        r#"{"cookies":5,"origins":{},"order":"x","extra":[]}"#,
        r#"{"cookies":[1,null,{}],"origins":[[],{"origin":5,"databases":-1}],"order":[1],"extra":"x"}"#,
        r#"{"cookies":[{"name":"a","extra":7,"order":{}}],"databases":99999999999999999999}"#,
    ] {
        let body = format!(
            r#"{{"cookies":[{{"name":"a","value":"b","domain":"x"}}],"playwright":{notes}}}"#
        );
        let sections = create(&Bytes::from(body.into_bytes())).unwrap().sections;
        assert!(
            exported(&sections).contains(r#""sameSite":"Lax""#),
            "{notes}"
        );
    }
}

#[test]
fn a_state_that_is_none_is_refused_with_the_place() {
    for (state, path) in [
        (r#"[]"#, None),
        (r#"{"cookies":{}}"#, Some("cookies")),
        (
            r#"{"cookies":[{"expires":"soon"}]}"#,
            Some("cookies[0].expires"),
        ),
        (
            r#"{"origins":[{"origin":"x","localStorage":{}}]}"#,
            Some("origins[0].localStorage"),
        ),
        (
            r#"{"origins":[{"origin":"x","localStorage":[{"key":"k"}]}]}"#,
            Some("origins[0].localStorage[0]"),
        ),
        (r#"{"origins":[{"localStorage":[]}]}"#, Some("origins[0]")),
        (
            r#"{"origins":[{"origin":"x","indexedDB":[{"stores":[{"records":[1]}]}]}]}"#,
            Some("origins[0].indexedDB[0].stores[0].records[0]"),
        ),
    ] {
        match create_playwright(&Bytes::from_static(state.as_bytes())) {
            Err(error @ DocumentError::WrongType { .. }) => {
                assert_eq!(error.path(), path, "{state}");
            }
            other => panic!("{state}: {other:?}"),
        }
    }
}
