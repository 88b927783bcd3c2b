//! The OpenAPI document against what the gateway has: routes, codes, and references that lead somewhere.

use std::collections::BTreeSet;

use gateway::error::Code;
use gateway::openapi::DOCUMENT;
use gateway::routes::ROUTES;
use serde_json::Value;

fn document() -> Value {
    serde_json::from_str(DOCUMENT).expect("json")
}

#[test]
fn every_route_is_in_the_document_and_the_other_way_round() {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let written: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, operations)| {
            operations
                .as_object()
                .expect("operations")
                .keys()
                .map(move |method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let served: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| (route.path.to_owned(), route.method.as_str().to_owned()))
        .collect();
    assert_eq!(written, served);
}

#[test]
fn open_routes_are_open_and_the_others_may_answer_401() {
    let document = document();
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        assert_eq!(
            operation["security"] == serde_json::json!([]),
            route.open,
            "{route:?}"
        );
        assert_eq!(
            operation["responses"]["401"].is_null(),
            route.open,
            "{route:?}"
        );
        let names = operation["parameters"].to_string();
        assert_eq!(
            route.path.contains("{id}"),
            names.contains("#/components/parameters/Id\""),
            "{route:?}"
        );
    }
}

#[test]
fn every_code_and_status_is_in_the_document_and_no_other() {
    let document = document();
    let words = document["components"]["schemas"]["Error"]["properties"]["code"]["enum"]
        .as_array()
        .expect("words");
    let words: Vec<_> = words
        .iter()
        .map(|word| word.as_str().expect("a word"))
        .collect();
    assert_eq!(
        words,
        Code::ALL.iter().map(|code| code.word()).collect::<Vec<_>>()
    );
    let responses = &document["components"]["responses"];
    for code in Code::ALL {
        let response = &responses[format!("E{}", code.status())];
        assert!(
            response["description"]
                .as_str()
                .is_some_and(|text| text.contains(code.word())),
            "{code:?}"
        );
    }
}

#[test]
fn every_reference_leads_somewhere_and_everything_is_referred_to() {
    let document = document();
    let mut used = BTreeSet::new();
    collect(&document, &mut used);
    for reference in &used {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for kind in ["schemas", "parameters", "headers", "responses"] {
        for name in document["components"][kind]
            .as_object()
            .expect("components")
            .keys()
        {
            assert!(
                used.contains(&format!("#/components/{kind}/{name}")),
                "{kind}/{name} is not used"
            );
        }
    }
}

fn collect(value: &Value, used: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                used.insert(reference.clone());
            }
            members.values().for_each(|value| collect(value, used));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, used)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
