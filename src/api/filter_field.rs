//! A filter on what events say, as a client writes it: how it is read, and what is wrong with one in both languages.

use serde_json::Value;

use super::error::{Code, Fault, Language, Words};
use crate::domain::payload_filter::{
    FilterError, FilterFault, MAX_BYTES, MAX_CONDITIONS, MAX_DIGITS, MAX_EXPONENT, MAX_LEVELS, PayloadFilter,
};

/// Reads a filter, or `null`. The value is its text as a string (`ApiCall::json_with_text`): a number that was read as
/// a value has lost digits.
pub fn read_filter(value: &Value) -> Result<Option<PayloadFilter>, Vec<Fault>> {
    if value.is_null() {
        return Ok(None);
    }
    let filter = PayloadFilter::parse(value.as_str().unwrap_or_default());
    filter.map(Some).map_err(|FilterError { pointer, fault }| vec![refusal(fault).at(&pointer)])
}

fn refusal(fault: FilterFault) -> Fault {
    let code = Code::FilterInvalid;
    let because = |language, reason: String| format!("{}: {reason}.", code.template(language).trim_end_matches('.'));
    let detail = Words::new(because(Language::English, fault.to_string()), because(Language::Spanish, spanish(fault)));
    Fault::new(code).saying(detail)
}

/// What the fault says in Spanish.
fn spanish(fault: FilterFault) -> String {
    match fault {
        FilterFault::TooLong => format!("un filtro tiene hasta {MAX_BYTES} bytes"),
        FilterFault::Unreadable => "un filtro es JSON".to_owned(),
        FilterFault::TooDeep => format!("un filtro tiene hasta {MAX_LEVELS} niveles de objetos y listas"),
        FilterFault::TooManyConditions => format!("un filtro tiene hasta {MAX_CONDITIONS} condiciones"),
        FilterFault::NoObject => "un filtro es un objeto".to_owned(),
        FilterFault::Empty => "un objeto sin condiciones solo se admite como filtro completo".to_owned(),
        FilterFault::Mixed => "un objeto tiene o bien campos o bien operadores".to_owned(),
        FilterFault::UnknownField => "los campos de un evento son event, data y channels".to_owned(),
        FilterFault::UnknownOperator => "los operadores son $eq, $neq, $gt, $gte, $lt, $lte, $in, $nin, $starts_with, \
                                         $ends_with, $contains, $exists, $not, $and y $or"
            .to_owned(),
        FilterFault::NeedsField => "este operador va debajo de un campo; arriba solo van $not, $and y $or".to_owned(),
        FilterFault::NoScalar => {
            "un valor con el que se compara es una cadena, un número, true, false o null".to_owned()
        }
        FilterFault::NoOrder => "este operador lleva un número o una cadena".to_owned(),
        FilterFault::NoText => "este operador lleva una cadena".to_owned(),
        FilterFault::NoBoolean => "este operador lleva true o false".to_owned(),
        FilterFault::NoList => "este operador lleva una lista".to_owned(),
        FilterFault::EmptyList => "la lista tiene al menos un miembro".to_owned(),
        FilterFault::NumberTooLarge => {
            format!("un número tiene hasta {MAX_DIGITS} cifras, y un exponente de -{MAX_EXPONENT} a {MAX_EXPONENT}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_keeps_its_digits_and_a_value_that_is_no_text_is_none() {
        let read = |value: Value| read_filter(&value).map(|filter| filter.map(|filter| filter.as_json().to_owned()));
        let text = r#"{"data":{"n":{"$gt":1.50}}}"#;
        assert_eq!(read(text.into()), Ok(Some(text.to_owned())));
        assert_eq!(read(Value::Null), Ok(None));
        for value in [Value::Bool(true), serde_json::json!({}), "\"{}\"".into()] {
            assert!(read(value.clone()).is_err(), "{value}");
        }
    }
}
