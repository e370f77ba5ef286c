//! What filters take and refuse, rule by rule, and compiled filters beside a plain reading of their text.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NO_CHANNELS: [&str; 0] = [];

fn filter(text: &str) -> PayloadFilter {
    PayloadFilter::parse(text).unwrap_or_else(|error| panic!("{text}: {error} at {:?}", error.pointer))
}

/// Whether an event with this data, of the type `order.paid` and in two channels, matches.
fn matches(text: &str, data: &str) -> bool {
    filter(text).matches(&ParsedEvent::parse("order.paid", data, &["eu", "vip"]))
}

/// Checks conditions of the field `a` against data, which may lack it.
fn check(cases: &[(&str, &str, bool)]) {
    for (condition, data, expected) in cases {
        assert_eq!(matches(&format!(r#"{{"data":{{"a":{condition}}}}}"#), data), *expected, "{condition} on {data}");
    }
}

fn refused(text: &str) -> (FilterFault, String) {
    let error = PayloadFilter::parse(text).expect_err(text);
    (error.fault, error.pointer)
}

/// A filter with so many levels.
fn nested(levels: usize) -> String {
    format!("{{\"data\":{}1{}", "{\"a\":".repeat(levels - 1), "}".repeat(levels))
}

#[test]
fn what_is_no_filter_is_refused_with_its_place() {
    use FilterFault as F;
    for (text, fault, pointer) in [
        ("", F::Unreadable, ""),
        (r#"{"event":"a"} {}"#, F::Unreadable, ""),
        (r#"{"event":NaN}"#, F::Unreadable, ""),
        ("[]", F::NoObject, ""),
        ("null", F::NoObject, ""),
        (r#"{"event":"a","type":"b"}"#, F::UnknownField, "/type"),
        (r#"{"$and":[{"a":1}]}"#, F::UnknownField, "/$and/0/a"),
        (r#"{"data":{"a":{"$regex":"x"}}}"#, F::UnknownOperator, "/data/a/$regex"),
        (r#"{"$nor":[]}"#, F::UnknownOperator, "/$nor"),
        (r#"{"$exists":true}"#, F::NeedsField, "/$exists"),
        (r#"{"event":"a","$or":[{"event":"b"}]}"#, F::Mixed, "/$or"),
        (r#"{"data":{"$exists":true,"a":1}}"#, F::Mixed, "/data/a"),
        (r#"{"data":{}}"#, F::Empty, "/data"),
        (r#"{"data":{"a":{"$not":{}}}}"#, F::Empty, "/data/a/$not"),
        (r#"{"$or":[{"event":"a"},{}]}"#, F::Empty, "/$or/1"),
        (r#"{"data":{"a":[1]}}"#, F::NoScalar, "/data/a"),
        (r#"{"data":{"a":{"$eq":{"b":1}}}}"#, F::NoScalar, "/data/a/$eq"),
        (r#"{"data":{"a":{"$neq":[]}}}"#, F::NoScalar, "/data/a/$neq"),
        (r#"{"data":{"a":{"$contains":["x"]}}}"#, F::NoScalar, "/data/a/$contains"),
        (r#"{"data":{"a":{"$in":[1,[2]]}}}"#, F::NoScalar, "/data/a/$in/1"),
        (r#"{"data":{"a":{"$nin":[{}]}}}"#, F::NoScalar, "/data/a/$nin/0"),
        (r#"{"data":{"a":{"$in":[]}}}"#, F::EmptyList, "/data/a/$in"),
        (r#"{"data":{"a":{"$nin":[]}}}"#, F::EmptyList, "/data/a/$nin"),
        (r#"{"data":{"a":{"$and":[]}}}"#, F::EmptyList, "/data/a/$and"),
        (r#"{"$or":[]}"#, F::EmptyList, "/$or"),
        (r#"{"data":{"a":{"$in":"x"}}}"#, F::NoList, "/data/a/$in"),
        (r#"{"$and":{"event":"a"}}"#, F::NoList, "/$and"),
        (r#"{"$not":[{"event":"a"}]}"#, F::NoObject, "/$not"),
        (r#"{"data":{"a":{"$or":[1]}}}"#, F::NoObject, "/data/a/$or/0"),
        (r#"{"data":{"a":{"$gt":true}}}"#, F::NoOrder, "/data/a/$gt"),
        (r#"{"data":{"a":{"$lte":null}}}"#, F::NoOrder, "/data/a/$lte"),
        (r#"{"data":{"a":{"$starts_with":1}}}"#, F::NoText, "/data/a/$starts_with"),
        (r#"{"data":{"a":{"$ends_with":null}}}"#, F::NoText, "/data/a/$ends_with"),
        (r#"{"data":{"a":{"$exists":"true"}}}"#, F::NoBoolean, "/data/a/$exists"),
        (r#"{"data":{"a":1e401}}"#, F::NumberTooLarge, "/data/a"),
        (r#"{"data":{"a":{"$in":[1,1e-401]}}}"#, F::NumberTooLarge, "/data/a/$in/1"),
        (r#"{"data":{"a":{"$gt":11111111111111111111111111111111111111111}}}"#, F::NumberTooLarge, "/data/a/$gt"),
        (r#"{"data":{"a/b":{"~c":{"":[]}}}}"#, F::NoScalar, "/data/a~1b/~0c/"),
    ] {
        assert_eq!(refused(text), (fault, pointer.to_owned()), "{text}");
    }
}

#[test]
fn bytes_levels_and_conditions_of_a_filter_are_bounded() {
    let long = |bytes: usize| format!(r#"{{"event":"{}"}}"#, "x".repeat(bytes - r#"{"event":""}"#.len()));
    assert_eq!(filter(&long(MAX_BYTES)).as_json(), long(MAX_BYTES));
    assert_eq!(refused(&long(MAX_BYTES + 1)), (FilterFault::TooLong, String::new()));

    assert!(PayloadFilter::parse(&nested(MAX_LEVELS)).is_ok());
    let deepest = format!("/data{}", "/a".repeat(MAX_LEVELS - 1));
    assert_eq!(refused(&nested(MAX_LEVELS + 1)), (FilterFault::TooDeep, deepest.clone()));
    let list = nested(MAX_LEVELS).replace('1', r#"{"$in":[1]}"#);
    assert_eq!(refused(&list), (FilterFault::TooDeep, deepest), "the object is a level too many already");
    let list = nested(MAX_LEVELS - 1).replace('1', r#"{"$in":[1]}"#);
    let place = format!("/data{}/$in", "/a".repeat(MAX_LEVELS - 2));
    assert_eq!(refused(&list), (FilterFault::TooDeep, place), "a list is a level");
    assert_eq!(refused(&nested(500)), (FilterFault::TooDeep, String::new()));

    let conditions = |count: usize| {
        let fields: Vec<_> = (0..count).map(|n| format!(r#"{{"data":{{"f{n}":{{"$gt":{n}}}}}}}"#)).collect();
        format!(r#"{{"$not":{{"$or":[{}]}}}}"#, fields.join(","))
    };
    assert!(PayloadFilter::parse(&conditions(MAX_CONDITIONS)).is_ok());
    let place = format!("/$not/$or/{MAX_CONDITIONS}/data/f{MAX_CONDITIONS}/$gt");
    assert_eq!(refused(&conditions(MAX_CONDITIONS + 1)), (FilterFault::TooManyConditions, place));
    let values: Vec<_> = (0..900).map(|n| n.to_string()).collect();
    assert!(matches(&format!(r#"{{"data":{{"a":{{"$in":[{}]}}}}}}"#, values.join(",")), r#"{"a":899}"#));
}

#[test]
fn of_repeated_names_the_last_counts_in_filters_and_in_events() {
    let text = r#" {"data": {"a": [1]}, "event": "order.paid", "data": {"b": 1.0, "a": {}, "a": {"$gt": 1e0}}} "#;
    assert_eq!(filter(text).as_json(), r#"{"event":"order.paid","data":{"b":1.0,"a":{"$gt":1e0}}}"#);
    assert!(matches(text, r#"{"a":0,"b":2,"a":2,"b":1}"#));
    assert!(!matches(text, r#"{"a":2,"b":1,"a":0}"#));
    assert!(!matches(text, r#"{"a":2,"b":1,"a":null}"#));
}

#[test]
fn the_fields_of_an_event_are_its_type_its_data_and_its_channels() {
    for (text, expected) in [
        ("{}", true),
        (r#"{"event":"order.paid"}"#, true),
        (r#"{"event":"order.failed"}"#, false),
        (r#"{"event":{"$starts_with":"order."},"data":{"a":1}}"#, true),
        (r#"{"event":{"$starts_with":"order."},"data":{"a":2}}"#, false),
        (r#"{"event":{"name":"order.paid"}}"#, false),
        (r#"{"channels":"vip"}"#, true),
        (r#"{"channels":{"$contains":"us"}}"#, false),
        (r#"{"channels":{"$contains":"eu"}}"#, true),
        (r#"{"channels":{"$contains":"e"}}"#, false),
        (r#"{"data":{"$exists":true}}"#, true),
        (r#"{"data":"x"}"#, false),
        (r#"{"$not":{"event":"order.paid"}}"#, false),
        (r#"{"$and":[{"event":"order.paid"},{"data":{"a":1}}]}"#, true),
        (r#"{"$or":[{"event":"x"},{"data":{"a":1}}]}"#, true),
        (r#"{"$or":[{"event":"x"},{"data":{"a":3}}],"$not":{"event":"y"}}"#, false),
    ] {
        assert_eq!(matches(text, r#"{"a":1}"#), expected, "{text}");
    }
    let without = ParsedEvent::parse("order.paid", "{}", &NO_CHANNELS);
    assert!(filter(r#"{"channels":{"$exists":false}}"#).matches(&without));
    assert!(!filter(r#"{"channels":{"$exists":true}}"#).matches(&without));
}

#[test]
fn values_are_equal_by_type_and_value() {
    check(&[
        ("1", r#"{"a":1.0}"#, true),
        ("1", r#"{"a":"1"}"#, false),
        ("0", r#"{"a":false}"#, false),
        ("true", r#"{"a":true}"#, true),
        ("true", r#"{"a":1}"#, false),
        ("null", r#"{"a":null}"#, true),
        ("null", "{}", false),
        (r#"{"$exists":true}"#, r#"{"a":null}"#, true),
        (r#"{"$neq":null}"#, r#"{"a":0}"#, true),
        (r#""A\n""#, r#"{"\u0061":"\u0041\u000a"}"#, true),
        (r#""""#, r#"{"a":""}"#, true),
        (r#""x""#, r#"{"a":"X"}"#, false),
        (r#"{"$in":[1,"x",null]}"#, r#"{"a":null}"#, true),
        (r#"{"$in":[1,"x",null]}"#, r#"{"a":10e-1}"#, true),
        (r#"{"$in":[1,"x",null]}"#, r#"{"a":false}"#, false),
        (r#"{"$nin":[1,"x"]}"#, r#"{"a":"x"}"#, false),
        (r#"{"$nin":[1,"x"]}"#, r#"{"a":{"b":1}}"#, true),
        (r#"{"$neq":1}"#, r#"{"a":"1"}"#, true),
        (r#"{"$eq":1}"#, r#"{"a":{"a":1}}"#, false),
    ]);
}

#[test]
fn numbers_are_compared_exactly() {
    let digits = "1234567890123456789012345678901234567890";
    let (same, more) = (format!(r#"{{"a":{digits}.0}}"#), format!(r#"{{"a":{digits}.1}}"#));
    check(&[
        (digits, same.as_str(), true),
        (digits, more.as_str(), false),
        (r#"{"$gt":0}"#, more.as_str(), false),
        (r#"{"$neq":0}"#, more.as_str(), true),
        ("9007199254740993", r#"{"a":9007199254740992}"#, false),
        (r#"{"$gt":9007199254740992}"#, r#"{"a":9007199254740993}"#, true),
        ("0.1", r#"{"a":0.1000000000000000055511151231257827}"#, false),
        ("0", r#"{"a":-0e9999}"#, true),
        ("1e400", r#"{"a":10e399}"#, true),
        (r#"{"$gt":1}"#, r#"{"a":1e401}"#, false),
        (r#"{"$lt":1}"#, r#"{"a":1e401}"#, false),
        (r#"{"$lt":1}"#, r#"{"a":1e-401}"#, false),
        (r#"{"$nin":[1]}"#, r#"{"a":1e99999999999999999999}"#, true),
        (r#"{"$exists":true}"#, r#"{"a":1e401}"#, true),
    ]);
}

#[test]
fn numbers_and_strings_have_an_order_and_nothing_else_has() {
    check(&[
        (r#"{"$gt":1}"#, r#"{"a":1.0}"#, false),
        (r#"{"$gte":1}"#, r#"{"a":1.0}"#, true),
        (r#"{"$lt":-1}"#, r#"{"a":-1.5}"#, true),
        (r#"{"$lte":-1}"#, r#"{"a":-1.0}"#, true),
        (r#"{"$gt":1,"$lt":3}"#, r#"{"a":2}"#, true),
        (r#"{"$gt":1,"$lt":3}"#, r#"{"a":3}"#, false),
        (r#"{"$gt":1}"#, r#"{"a":"2"}"#, false),
        (r#"{"$lt":"2"}"#, r#"{"a":1}"#, false),
        (r#"{"$gte":0}"#, r#"{"a":null}"#, false),
        (r#"{"$gte":0}"#, r#"{"a":true}"#, false),
        (r#"{"$lt":"b"}"#, r#"{"a":"a"}"#, true),
        (r#"{"$gt":"Z"}"#, r#"{"a":"a"}"#, true),
        // By code point, U+FF5E is less than U+1F600. By unit of UTF-16 it is greater.
        (r#"{"$lt":"😀"}"#, r#"{"a":"～"}"#, true),
    ]);
}

#[test]
fn parts_of_strings_are_found() {
    check(&[
        (r#"{"$starts_with":"or"}"#, r#"{"a":"order"}"#, true),
        (r#"{"$starts_with":"der"}"#, r#"{"a":"order"}"#, false),
        (r#"{"$ends_with":"der"}"#, r#"{"a":"order"}"#, true),
        (r#"{"$ends_with":"é"}"#, r#"{"a":"caf\u00e9"}"#, true),
        (r#"{"$contains":"rde"}"#, r#"{"a":"order"}"#, true),
        (r#"{"$contains":""}"#, r#"{"a":""}"#, true),
        (r#"{"$contains":1}"#, r#"{"a":"1"}"#, false),
        (r#"{"$contains":"1"}"#, r#"{"a":1}"#, false),
        (r#"{"$contains":"b"}"#, r#"{"a":{"b":1}}"#, false),
        (r#"{"$starts_with":"1"}"#, r#"{"a":1}"#, false),
        // Half of a surrogate pair does not hide the rest.
        (r#"{"$starts_with":"x"}"#, r#"{"a":"x\ud83d"}"#, true),
    ]);
}

#[test]
fn on_a_missing_field_only_negations_hold() {
    for (condition, expected) in [
        (r#"{"$exists":false}"#, true),
        (r#"{"$neq":1}"#, true),
        (r#"{"$nin":[1]}"#, true),
        (r#"{"$not":{"$eq":1}}"#, true),
        (r#"{"$not":{"$exists":false}}"#, false),
        (r#"{"$or":[{"$eq":1},{"$exists":false}]}"#, true),
        (r#"{"$and":[{"$eq":1},{"$exists":false}]}"#, false),
        (r#"{"b":{"$exists":false}}"#, true),
        (r#"{"b":{"$neq":1}}"#, true),
        (r#"{"b":1}"#, false),
        ("null", false),
        (r#"{"$exists":true}"#, false),
        (r#"{"$in":[null]}"#, false),
        (r#"{"$gte":0}"#, false),
        (r#"{"$lte":"z"}"#, false),
        (r#"{"$starts_with":""}"#, false),
        (r#"{"$ends_with":""}"#, false),
        (r#"{"$contains":""}"#, false),
    ] {
        check(&[(condition, "{}", expected)]);
    }
    // A value that is no object has no fields.
    check(&[(r#"{"b":{"$exists":false}}"#, r#"{"a":5}"#, true), (r#"{"b":{"$exists":true}}"#, r#"{"a":null}"#, false)]);
}

#[test]
fn a_condition_on_an_array_holds_where_one_member_meets_it() {
    check(&[
        ("1", r#"{"a":[2,1]}"#, true),
        ("1", r#"{"a":[2,3]}"#, false),
        ("1", r#"{"a":[]}"#, false),
        ("null", r#"{"a":[null]}"#, true),
        (r#"{"$in":[1,2]}"#, r#"{"a":[3,2]}"#, true),
        (r#"{"$gt":5}"#, r#"{"a":["x",6]}"#, true),
        // Each operator is a condition by itself.
        (r#"{"$gt":5,"$lt":2}"#, r#"{"a":[1,6]}"#, true),
        (r#"{"$starts_with":"x"}"#, r#"{"a":["a","xa"]}"#, true),
        (r#"{"$neq":1}"#, r#"{"a":[2,3]}"#, true),
        (r#"{"$neq":1}"#, r#"{"a":[2,1]}"#, false),
        (r#"{"$neq":1}"#, r#"{"a":[]}"#, true),
        (r#"{"$nin":[1,2]}"#, r#"{"a":[3,2]}"#, false),
        (r#"{"$exists":true}"#, r#"{"a":[]}"#, true),
        (r#"{"$contains":"xy"}"#, r#"{"a":["xy"]}"#, true),
        (r#"{"$contains":"x"}"#, r#"{"a":["xy"]}"#, false),
        (r#"{"$contains":null}"#, r#"{"a":[1,null]}"#, true),
        (r#"{"$contains":1}"#, r#"{"a":[1.0]}"#, true),
        // Combinations are about the array as a whole.
        (r#"{"$not":{"$eq":1}}"#, r#"{"a":[1,2]}"#, false),
        (r#"{"$not":{"$contains":"x"}}"#, r#"{"a":["x","y"]}"#, false),
        (r#"{"$and":[{"$eq":1},{"$eq":2}]}"#, r#"{"a":[1,2]}"#, true),
        // Arrays in arrays are not entered.
        ("1", r#"{"a":[[1]]}"#, false),
        (r#"{"$neq":1}"#, r#"{"a":[[1]]}"#, true),
        (r#"{"$contains":1}"#, r#"{"a":[[1]]}"#, false),
        (r#"{"b":1}"#, r#"{"a":[[{"b":1}]]}"#, false),
    ]);
}

#[test]
fn an_object_condition_holds_within_one_member() {
    let both = r#"{"b":1,"c":{"$gt":5}}"#;
    check(&[
        (both, r#"{"a":{"b":1,"c":6}}"#, true),
        (both, r#"{"a":[{"b":1,"c":5},{"b":1,"c":6}]}"#, true),
        (both, r#"{"a":[{"b":1,"c":5},{"b":2,"c":6}]}"#, false),
        (r#"{"$and":[{"b":1},{"c":{"$gt":5}}]}"#, r#"{"a":[{"b":1,"c":5},{"b":2,"c":6}]}"#, true),
        (r#"{"b":{"$neq":1}}"#, r#"{"a":[{"b":1},{"b":2}]}"#, true),
        (r#"{"b":{"$neq":1}}"#, r#"{"a":[{"b":1}]}"#, false),
        (r#"{"b":{"$neq":1}}"#, r#"{"a":[]}"#, false),
        (r#"{"b":{"$exists":false}}"#, r#"{"a":[{"b":1},7]}"#, true),
        (r#"{"$not":{"b":1}}"#, r#"{"a":[{"b":1},{"b":2}]}"#, false),
        // A list within a member of a list is entered: it has a name.
        (r#"{"b":{"c":1}}"#, r#"{"a":[{"b":[{"c":2},{"c":1}]}]}"#, true),
    ]);
}

#[test]
fn the_first_thousand_members_of_an_array_are_looked_at() {
    for (before, expected) in [(999, true), (1_000, false)] {
        let (plain, objects) = ("0,".repeat(before), r#"{"b":0},"#.repeat(before));
        let (plain, objects) = (format!(r#"{{"a":[{plain}1]}}"#), format!(r#"{{"a":[{objects}{{"b":1}}]}}"#));
        check(&[
            ("1", plain.as_str(), expected),
            (r#"{"$contains":1}"#, plain.as_str(), expected),
            (r#"{"$neq":1}"#, plain.as_str(), !expected),
            (r#"{"b":1}"#, objects.as_str(), expected),
        ]);
    }
}

#[test]
fn no_filter_matches_an_event_that_is_too_deep_or_no_json() {
    let nested = |levels: usize| format!("{}{{}}{}", r#"{"a":"#.repeat(levels - 1), "}".repeat(levels - 1));
    let (deepest, too_deep) = (nested(MAX_EVENT_LEVELS), nested(MAX_EVENT_LEVELS + 1));
    for text in ["{}", r#"{"event":"order.paid"}"#, r#"{"data":{"b":{"$exists":false}}}"#] {
        assert!(matches(text, &deepest), "{text}");
        for data in [too_deep.as_str(), "", "{", "{}}", r#"{"a":01}"#] {
            let event = ParsedEvent::parse("order.paid", data, &NO_CHANNELS);
            assert!(!filter(text).matches(&event), "{text}");
            assert_eq!(filter(text).failed_at(&event).as_deref(), Some(""), "{text}");
        }
    }
}

#[test]
fn the_first_condition_that_failed_is_told() {
    let data = r#"{"a":1,"b":{"c":"x"},"list":[{"d":1,"e":1},{"d":2,"e":2}],"none":[]}"#;
    let event = ParsedEvent::parse("order.paid", data, &["eu"]);
    for (text, expected) in [
        ("{}", None),
        (r#"{"event":"order.paid","data":{"a":1}}"#, None),
        (r#"{"event":"order.failed","data":{"a":2}}"#, Some("/event")),
        (r#"{"event":"order.paid","data":{"a":2,"b":1}}"#, Some("/data/a")),
        (r#"{"data":{"a":{"$gt":0,"$lt":1}}}"#, Some("/data/a/$lt")),
        (r#"{"data":{"b":{"c":{"$in":["y"]}}}}"#, Some("/data/b/c/$in")),
        (r#"{"data":{"a/b":{"c~d":1}}}"#, Some("/data/a~1b/c~0d")),
        (r#"{"$and":[{"event":"order.paid"},{"data":{"a":2}}]}"#, Some("/$and/1/data/a")),
        (r#"{"$or":[{"event":"x"},{"data":{"a":2}}]}"#, Some("/$or")),
        (r#"{"data":{"a":{"$or":[{"$eq":2},{"$eq":3}]}}}"#, Some("/data/a/$or")),
        (r#"{"$not":{"event":"order.paid"}}"#, Some("/$not")),
        (r#"{"$and":[{"$not":{"data":{"a":1}}}]}"#, Some("/$and/0/$not")),
        (r#"{"channels":"us"}"#, Some("/channels")),
        (r#"{"data":{"list":{"d":3,"e":1}}}"#, Some("/data/list/d")),
        (r#"{"data":{"list":{"d":1,"e":2}}}"#, Some("/data/list/e")),
        (r#"{"data":{"none":{"d":1}}}"#, Some("/data/none")),
    ] {
        assert_eq!(filter(text).failed_at(&event).as_deref(), expected, "{text}");
        assert_eq!(filter(text).matches(&event), expected.is_none(), "{text}");
    }
}

#[test]
fn the_work_grows_with_conditions_long_lists_and_the_event() {
    let work = |text: &str| PayloadFilter::work(100, [&filter(text)]);
    assert_eq!(work("{}"), 100);
    assert_eq!(work(r#"{"event":"a","data":{"$not":{"b":1,"c":{"$gt":1,"$lt":2}}}}"#), 500);
    assert_eq!(work(r#"{"event":{"$in":["a","b","c","d"]}}"#), 400);
    assert_eq!(PayloadFilter::work(1_000, &[filter(r#"{"event":"a"}"#), filter("{}")]), 2_000);
    assert_eq!(PayloadFilter::work(1_000, []), 1_000);
}

#[test]
fn filters_with_the_same_text_are_equal() {
    assert_eq!(filter(r#"{ "data": { "a": 1 } }"#), filter(r#"{"data":{"a":1}}"#));
    assert_ne!(filter(r#"{"data":{"a":1}}"#), filter(r#"{"data":{"a":1.0}}"#));
}

/// What a filter, or the value of a field in one, says of a value: as the rules read, without a thought of speed.
fn holds(filter: &Value, value: Option<&Value>) -> bool {
    let Value::Object(members) = filter else { return operator_holds("$eq", filter, value) };
    if members.keys().any(|name| name.starts_with('$')) {
        return members.iter().all(|(name, operand)| operator_holds(name, operand, value));
    }
    let within = |object: Option<&Value>| {
        members.iter().all(|(name, filter)| holds(filter, object.and_then(|object| object.as_object()?.get(name))))
    };
    match value {
        Some(Value::Array(list)) => list.iter().take(1_000).any(|member| within(Some(member))),
        _ => within(value),
    }
}

fn operator_holds(name: &str, operand: &Value, value: Option<&Value>) -> bool {
    let looked_at: Vec<&Value> = match value {
        None => Vec::new(),
        Some(Value::Array(list)) => list.iter().take(1_000).collect(),
        Some(value) => vec![value],
    };
    let list = || operand.as_array().expect("a list").iter();
    let is_there = |wanted: &Value| looked_at.iter().any(|value| is_equal(value, wanted));
    let is_ordered = |expected: &[i8]| {
        looked_at.iter().any(|value| order(value, operand).is_some_and(|order| expected.contains(&order)))
    };
    let is_text = |is_expected: fn(&str, &str) -> bool| {
        let mut texts = looked_at.iter().filter_map(|value| value.as_str());
        operand.as_str().is_some_and(|operand| texts.any(|text| is_expected(text, operand)))
    };
    match name {
        "$eq" => is_there(operand),
        "$neq" => !is_there(operand),
        "$in" => list().any(is_there),
        "$nin" => !list().any(is_there),
        "$gt" => is_ordered(&[1]),
        "$gte" => is_ordered(&[0, 1]),
        "$lt" => is_ordered(&[-1]),
        "$lte" => is_ordered(&[-1, 0]),
        "$starts_with" => is_text(|text, start| text.starts_with(start)),
        "$ends_with" => is_text(|text, end| text.ends_with(end)),
        "$contains" if value.is_some_and(Value::is_array) => is_there(operand),
        "$contains" => is_text(|text, part| text.contains(part)),
        "$exists" => value.is_some() == (*operand == Value::Bool(true)),
        "$not" => !holds(operand, value),
        "$and" => list().all(|filter| holds(filter, value)),
        "$or" => list().any(|filter| holds(filter, value)),
        _ => unreachable!("{name}"),
    }
}

/// The order of two numbers or two strings. The numbers of these tests are exact in `f64`, or rounded from one text.
fn order(a: &Value, b: &Value) -> Option<i8> {
    let order = match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?)?,
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => return None,
    };
    Some(order as i8)
}

fn is_equal(a: &Value, b: &Value) -> bool {
    let is_scalar = !a.is_array() && !a.is_object();
    order(a, b).map_or(is_scalar && a == b, |order| order == 0)
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const TEXTS: [&str; 6] = [r#""""#, r#""a""#, r#""\u0061""#, r#""ab""#, r#""b""#, r#""é""#];
const NUMBERS: [&str; 9] = ["0", "-0.0", "1", "1.0", "10e-1", "2", "-1.5", "0.25", "25E-2"];
const OTHERS: [&str; 3] = ["null", "true", "false"];

fn pick(texts: &'static [&'static str]) -> BoxedStrategy<String> {
    proptest::sample::select(texts).prop_map(str::to_owned).boxed()
}

fn scalar() -> BoxedStrategy<String> {
    prop_oneof![pick(&TEXTS), pick(&NUMBERS), pick(&OTHERS)].boxed()
}

fn list(members: BoxedStrategy<String>, least: usize) -> BoxedStrategy<String> {
    vec(members, least..4).prop_map(|members| format!("[{}]", members.join(", "))).boxed()
}

/// An object; names may be repeated.
fn object(names: &'static [&'static str], values: BoxedStrategy<String>, least: usize) -> BoxedStrategy<String> {
    let member = (pick(names), values).prop_map(|(name, value)| format!(r#""{name}": {value}"#));
    vec(member, least..4).prop_map(|members| format!("{{{}}}", members.join(" ,"))).boxed()
}

fn data() -> BoxedStrategy<String> {
    let values = scalar().prop_recursive(4, 32, 4, |inner| {
        prop_oneof![list(inner.clone().boxed(), 0), object(&NAMES, inner.boxed(), 0)]
    });
    object(&NAMES, values.boxed(), 0)
}

/// An object of operators that look at a value.
fn comparisons() -> BoxedStrategy<String> {
    let ordered = prop_oneof![pick(&NUMBERS), pick(&TEXTS)].boxed();
    prop_oneof![
        object(&["$eq", "$neq", "$contains"], scalar(), 1),
        object(&["$gt", "$gte", "$lt", "$lte"], ordered, 1),
        object(&["$in", "$nin"], list(scalar(), 1), 1),
        object(&["$starts_with", "$ends_with", "$contains"], pick(&TEXTS), 1),
        object(&["$exists"], pick(&["true", "false"]), 1),
    ]
    .boxed()
}

fn combination(filters: BoxedStrategy<String>) -> BoxedStrategy<String> {
    prop_oneof![object(&["$not"], filters.clone(), 1), object(&["$and", "$or"], list(filters, 1), 1)].boxed()
}

/// What stands at a field.
fn condition() -> BoxedStrategy<String> {
    let as_filter = |text: String| if text.starts_with('{') { text } else { format!(r#"{{"$eq":{text}}}"#) };
    let leaf = prop_oneof![scalar(), comparisons()];
    leaf.prop_recursive(2, 12, 3, move |inner| {
        let filters = inner.clone().prop_map(as_filter).boxed();
        prop_oneof![object(&NAMES, inner.boxed(), 1), combination(filters)]
    })
    .boxed()
}

fn any_filter() -> BoxedStrategy<String> {
    let data = object(&["data"], object(&NAMES, condition(), 1), 1);
    let fields = prop_oneof![3 => data, 1 => object(&["event", "data", "channels"], condition(), 1)].boxed();
    prop_oneof![3 => fields.clone(), 1 => combination(fields)].boxed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_compiled_filter_says_what_a_plain_reading_of_its_text_says(
        text in any_filter(),
        event_type in pick(&NAMES),
        data in data(),
        channels in vec(pick(&NAMES), 0..3),
    ) {
        let compiled = match PayloadFilter::parse(&text) {
            Ok(compiled) => compiled,
            Err(error) => {
                let is_too_much = matches!(
                    error.fault,
                    FilterFault::TooLong | FilterFault::TooDeep | FilterFault::TooManyConditions
                );
                prop_assert!(is_too_much, "{text}: {error} at {}", error.pointer);
                return Ok(());
            }
        };
        let event = ParsedEvent::parse(&event_type, &data, &channels);
        let plain: Value = serde_json::from_str(&text).expect("JSON");
        let mut plain_event = json!({"event": event_type, "data": serde_json::from_str::<Value>(&data).expect("JSON")});
        if !channels.is_empty() {
            plain_event["channels"] = json!(channels);
        }
        let is_match = holds(&plain, Some(&plain_event));
        prop_assert_eq!(compiled.matches(&event), is_match, "{} on {}", text, plain_event);
        let failed_at = compiled.failed_at(&event);
        prop_assert_eq!(failed_at.is_none(), is_match);
        prop_assert!(failed_at.is_none_or(|pointer| plain.pointer(&pointer).is_some()), "{text}");
        // What is stored is the same filter.
        let stored = PayloadFilter::parse(compiled.as_json()).expect("a filter");
        prop_assert_eq!(stored.as_json(), compiled.as_json());
        prop_assert_eq!(stored.matches(&event), is_match);
        prop_assert_eq!(serde_json::from_str::<Value>(stored.as_json()).expect("JSON"), plain);
    }

    #[test]
    fn any_text_is_a_filter_or_an_error_and_never_a_panic(
        bytes in vec(any::<u8>(), 0..60),
        pieces in vec(proptest::sample::select(&[
            "{", "}", "[", "]", ":", ",", "\"data\"", "\"event\"", "\"$not\"", "\"$and\"", "\"$in\"", "\"$gt\"", "1",
            "-1e400", "\"\\ud800\"", "null", "é",
        ][..]), 0..16),
    ) {
        for text in [String::from_utf8_lossy(&bytes).into_owned(), pieces.concat()] {
            let event = ParsedEvent::parse("a", &text, &NO_CHANNELS);
            let _ = filter(r#"{"data":{"a":{"$gt":1}}}"#).failed_at(&event);
            if let Ok(compiled) = PayloadFilter::parse(&text) {
                let _ = compiled.failed_at(&event);
                let _ = compiled.failed_at(&ParsedEvent::parse("a", "{}", &["b"]));
            }
        }
    }
}
