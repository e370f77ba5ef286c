//! A filter is read from JSON and compiled, or refused with the place and the reason.

use std::cmp::Ordering;

use super::clauses::{Clauses, Comparison, ROOT, Scalars, Test};
use super::decimal::{MAX_DIGITS, MAX_EXPONENT};
use super::json::{Document, Item, Kind, ReadError, Scalar};

/// Longest filter, in bytes of JSON.
pub const MAX_BYTES: usize = 4096;

/// Most levels of objects and lists in a filter; the filter itself is the first. They bound every recursion.
pub const MAX_LEVELS: usize = 8;

/// Most conditions of a filter: plain values, and operators that look at a value. `$not`, `$and` and `$or` only combine
/// them.
pub const MAX_CONDITIONS: usize = 32;

/// What an event has that a filter can look at.
pub const ROOT_FIELDS: [&str; 3] = ["event", "data", "channels"];

/// Operators that look at a value, and stand below a field only.
pub const VALUE_OPERATORS: [&str; 12] =
    ["$eq", "$neq", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$starts_with", "$ends_with", "$contains", "$exists"];

/// Why a text is no filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterFault {
    /// More than [`MAX_BYTES`].
    #[error("a filter has up to {MAX_BYTES} bytes")]
    TooLong,
    /// No JSON.
    #[error("a filter is JSON")]
    Unreadable,
    /// More than [`MAX_LEVELS`].
    #[error("a filter has up to {MAX_LEVELS} levels of objects and arrays")]
    TooDeep,
    /// More than [`MAX_CONDITIONS`].
    #[error("a filter has up to {MAX_CONDITIONS} conditions")]
    TooManyConditions,
    /// Something else where a filter stands.
    #[error("a filter is an object")]
    NoObject,
    /// `{}` that is not the whole filter.
    #[error("an object without conditions is allowed only as the whole filter")]
    Empty,
    /// Field names and operators in one object.
    #[error("an object has either fields or operators")]
    Mixed,
    /// A field that an event does not have.
    #[error("the fields of an event are event, data and channels")]
    UnknownField,
    /// A name that begins with `$` and is no operator.
    #[error(
        "the operators are $eq, $neq, $gt, $gte, $lt, $lte, $in, $nin, $starts_with, $ends_with, $contains, $exists, \
         $not, $and and $or"
    )]
    UnknownOperator,
    /// An operator that looks at a value, where no field is named.
    #[error("this operator stands below a field; only $not, $and and $or stand at the top")]
    NeedsField,
    /// An array or an object to compare with.
    #[error("a value to compare with is a string, a number, true, false or null")]
    NoScalar,
    /// Something that has no order.
    #[error("this operator takes a number or a string")]
    NoOrder,
    /// No string.
    #[error("this operator takes a string")]
    NoText,
    /// Neither `true` nor `false`.
    #[error("this operator takes true or false")]
    NoBoolean,
    /// No array.
    #[error("this operator takes an array")]
    NoList,
    /// An array without members.
    #[error("the array has at least one member")]
    EmptyList,
    /// A number with more than [`MAX_DIGITS`], or an exponent beyond [`MAX_EXPONENT`].
    #[error("a number has up to {MAX_DIGITS} digits, and an exponent from -{MAX_EXPONENT} to {MAX_EXPONENT}")]
    NumberTooLarge,
}

/// Why a text is no filter, and where. Only the first fault is told.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{fault}")]
pub struct FilterError {
    /// The place in the filter, as a JSON pointer; empty for the whole. It has names that a client chose, and up to
    /// twice [`MAX_BYTES`].
    pub pointer: String,
    /// The reason.
    pub fault: FilterFault,
}

/// Reads a filter: its text without spaces and repeated names, and its clauses.
pub(super) fn compile(text: &str) -> Result<(String, Clauses), FilterError> {
    let whole = |fault| FilterError { pointer: String::new(), fault };
    if text.len() > MAX_BYTES {
        return Err(whole(FilterFault::TooLong));
    }
    let document = Document::read(text).map_err(|error| match error {
        ReadError::Unreadable => whole(FilterFault::Unreadable),
        ReadError::TooDeep => whole(FilterFault::TooDeep),
    })?;
    let mut compiler = Compiler { clauses: Clauses::new(), conditions: 0 };
    let top = compiler.filter(document.root(), Place { clause: ROOT, levels: 0, is_event: true })?;
    compiler.clauses.set(ROOT, top);
    let mut canonical = String::new();
    document.root().write(&mut canonical);
    // What is written is read again as the same filter.
    debug_assert!(canonical.len() <= text.len(), "no value is written longer than the client wrote it");
    Ok((canonical, compiler.clauses))
}

/// Where something stands in a filter.
#[derive(Clone, Copy)]
struct Place {
    /// Its clause.
    clause: usize,
    /// The objects and lists around it.
    levels: usize,
    /// Whether it is about the event, and not about the value of a field.
    is_event: bool,
}

struct Compiler {
    clauses: Clauses,
    conditions: usize,
}

impl Compiler {
    /// An object of fields or operators.
    fn filter(&mut self, item: Item<'_>, place: Place) -> Result<Test, FilterError> {
        if !item.is_object() {
            return Err(self.refusal(place, FilterFault::NoObject));
        }
        let inside = self.enter(place)?;
        let members = item.members();
        let has_operators = members.first().is_some_and(|first| is_operator(first.name()));
        if members.is_empty() && place.clause != ROOT {
            return Err(self.refusal(place, FilterFault::Empty));
        }
        let mut clauses = Vec::with_capacity(members.len());
        for member in members {
            let clause = self.clauses.add(place.clause, member.name());
            let below = Place { clause, ..inside };
            if is_operator(member.name()) != has_operators {
                return Err(self.refusal(below, FilterFault::Mixed));
            }
            let test = if has_operators { self.operator(member, below)? } else { self.field(member, below)? };
            self.clauses.set(clause, test);
            clauses.push(clause);
        }
        // `{}` as the whole filter has no fields, and holds for every event.
        Ok(if has_operators { Test::All(clauses) } else { Test::Fields(clauses) })
    }

    fn field(&mut self, item: Item<'_>, place: Place) -> Result<Test, FilterError> {
        if place.is_event && !ROOT_FIELDS.contains(&item.name()) {
            return Err(self.refusal(place, FilterFault::UnknownField));
        }
        if item.is_object() {
            return self.filter(item, Place { is_event: false, ..place });
        }
        self.count(place)?;
        let value = scalar(item).map_err(|fault| self.refusal(place, fault))?;
        Ok(Test::Compare(Comparison::OneOf(Scalars::new(vec![value]))))
    }

    fn operator(&mut self, item: Item<'_>, place: Place) -> Result<Test, FilterError> {
        match item.name() {
            "$not" => Ok(Test::Not(Box::new(self.filter(item, place)?))),
            "$and" => Ok(Test::All(self.filters(item, place)?)),
            "$or" => Ok(Test::Any(self.filters(item, place)?)),
            name if !VALUE_OPERATORS.contains(&name) => Err(self.refusal(place, FilterFault::UnknownOperator)),
            _ if place.is_event => Err(self.refusal(place, FilterFault::NeedsField)),
            _ => Ok(Test::Compare(self.comparison(item, place)?)),
        }
    }

    /// A list of filters.
    fn filters(&mut self, item: Item<'_>, place: Place) -> Result<Vec<usize>, FilterError> {
        let inside = self.enter_list(item, place)?;
        let mut clauses = Vec::new();
        for (number, filter) in item.children().enumerate() {
            let clause = self.clauses.add(place.clause, &number.to_string());
            let test = self.filter(filter, Place { clause, ..inside })?;
            self.clauses.set(clause, test);
            clauses.push(clause);
        }
        Ok(clauses)
    }

    fn comparison(&mut self, item: Item<'_>, place: Place) -> Result<Comparison, FilterError> {
        self.count(place)?;
        let one = |item| scalar(item).map(|value| Scalars::new(vec![value]));
        let comparison = match item.name() {
            "$in" => return Ok(Comparison::OneOf(self.scalars(item, place)?)),
            "$nin" => return Ok(Comparison::NoneOf(self.scalars(item, place)?)),
            "$eq" => one(item).map(Comparison::OneOf),
            "$neq" => one(item).map(Comparison::NoneOf),
            "$gt" => bound(item).map(|bound| Comparison::Ordered(Ordering::is_gt, bound)),
            "$gte" => bound(item).map(|bound| Comparison::Ordered(Ordering::is_ge, bound)),
            "$lt" => bound(item).map(|bound| Comparison::Ordered(Ordering::is_lt, bound)),
            "$lte" => bound(item).map(|bound| Comparison::Ordered(Ordering::is_le, bound)),
            "$starts_with" => text(item).map(Comparison::StartsWith),
            "$ends_with" => text(item).map(Comparison::EndsWith),
            "$contains" => scalar(item).map(Comparison::Contains),
            "$exists" => boolean(item).map(Comparison::Exists),
            _ => Err(FilterFault::UnknownOperator),
        };
        comparison.map_err(|fault| self.refusal(place, fault))
    }

    /// A list of values to compare with.
    fn scalars(&self, item: Item<'_>, place: Place) -> Result<Scalars, FilterError> {
        self.enter_list(item, place)?;
        let mut scalars = Vec::new();
        for (number, member) in item.children().enumerate() {
            let refusal = |fault| {
                let list = self.clauses.pointer(place.clause);
                FilterError { pointer: format!("{list}/{number}"), fault }
            };
            scalars.push(scalar(member).map_err(refusal)?);
        }
        Ok(Scalars::new(scalars))
    }

    /// Counts a level, and refuses one too many.
    fn enter(&self, place: Place) -> Result<Place, FilterError> {
        if place.levels == MAX_LEVELS {
            return Err(self.refusal(place, FilterFault::TooDeep));
        }
        Ok(Place { levels: place.levels + 1, ..place })
    }

    fn enter_list(&self, item: Item<'_>, place: Place) -> Result<Place, FilterError> {
        if !item.is_list() {
            return Err(self.refusal(place, FilterFault::NoList));
        }
        if item.children().next().is_none() {
            return Err(self.refusal(place, FilterFault::EmptyList));
        }
        self.enter(place)
    }

    /// Counts a condition, and refuses one too many.
    fn count(&mut self, place: Place) -> Result<(), FilterError> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(self.refusal(place, FilterFault::TooManyConditions));
        }
        Ok(())
    }

    fn refusal(&self, place: Place, fault: FilterFault) -> FilterError {
        FilterError { pointer: self.clauses.pointer(place.clause), fault }
    }
}

fn is_operator(name: &str) -> bool {
    name.starts_with('$')
}

fn scalar(item: Item<'_>) -> Result<Scalar<'static>, FilterFault> {
    let fault =
        if matches!(item.kind(), Kind::Number(_)) { FilterFault::NumberTooLarge } else { FilterFault::NoScalar };
    item.scalar().map(Scalar::into_owned).ok_or(fault)
}

/// What other values can be less or greater than.
fn bound(item: Item<'_>) -> Result<Scalar<'static>, FilterFault> {
    match item.kind() {
        Kind::Number(_) | Kind::Text(_) => scalar(item),
        _ => Err(FilterFault::NoOrder),
    }
}

fn text(item: Item<'_>) -> Result<Box<str>, FilterFault> {
    match item.kind() {
        Kind::Text(text) => Ok(Box::from(&**text)),
        _ => Err(FilterFault::NoText),
    }
}

fn boolean(item: Item<'_>) -> Result<bool, FilterFault> {
    match item.kind() {
        Kind::Bool(value) => Ok(*value),
        _ => Err(FilterFault::NoBoolean),
    }
}
