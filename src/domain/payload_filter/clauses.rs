//! A compiled filter: its clauses, and how an event is checked against them.
//!
//! A clause meets each value of an event once at most: a value has one object or list around it, and a clause one
//! clause above it. So a check takes no more than its conditions times the size of the event.

use std::cmp::Ordering;
use std::mem::discriminant;

use super::json::{Item, Kind, Scalar};

/// Most members of a list of an event that are looked at.
pub const MAX_MEMBERS: usize = 1_000;

/// The clause of the whole filter.
pub(super) const ROOT: usize = 0;

/// What must hold for a value.
pub(super) enum Test {
    /// For the value, or for one member of it where it is a list: each field of these names, which are the steps of the
    /// clauses.
    Fields(Vec<usize>),
    /// Each of the clauses.
    All(Vec<usize>),
    /// One of the clauses.
    Any(Vec<usize>),
    /// Not this.
    Not(Box<Test>),
    /// A condition.
    Compare(Comparison),
}

/// Scalars in their order, each once.
pub(super) struct Scalars(Box<[Scalar<'static>]>);

impl Scalars {
    /// These.
    pub fn new(mut scalars: Vec<Scalar<'static>>) -> Self {
        scalars.sort_unstable();
        scalars.dedup();
        Self(scalars.into_boxed_slice())
    }

    /// Whether the value is one of them.
    fn have(&self, value: Item<'_>) -> bool {
        value.scalar().is_some_and(|scalar| self.0.binary_search(&scalar).is_ok())
    }
}

/// What a condition asks of a value. Unless it says something else, it asks it of one member of a list.
pub(super) enum Comparison {
    /// It equals one of these.
    OneOf(Scalars),
    /// It equals none of these. No member of a list does.
    NoneOf(Scalars),
    /// It has the type of this number or string, and their order is such.
    Ordered(fn(Ordering) -> bool, Scalar<'static>),
    /// It is a string that starts so.
    StartsWith(Box<str>),
    /// It is a string that ends so.
    EndsWith(Box<str>),
    /// It is a string with this string in it, or a list with this member.
    Contains(Scalar<'static>),
    /// It is there, or it is not. A list is not entered.
    Exists(bool),
}

impl Comparison {
    fn holds(&self, value: Option<Item<'_>>) -> bool {
        match self {
            Self::Exists(expected) => value.is_some() == *expected,
            Self::NoneOf(scalars) => !any(value, |value| scalars.have(value)),
            Self::OneOf(scalars) => any(value, |value| scalars.have(value)),
            Self::Ordered(is_expected, bound) => any(value, |value| {
                let scalar = value.scalar().filter(|scalar| discriminant(scalar) == discriminant(bound));
                scalar.is_some_and(|scalar| is_expected(scalar.cmp(bound)))
            }),
            Self::StartsWith(start) => any(value, |value| text(value).is_some_and(|text| text.starts_with(&**start))),
            Self::EndsWith(end) => any(value, |value| text(value).is_some_and(|text| text.ends_with(&**end))),
            Self::Contains(part) => value.is_some_and(|value| match (value.kind(), part) {
                (Kind::Text(text), Scalar::Text(part)) => text.contains(&**part),
                (Kind::List, _) => members(value).any(|member| member.scalar().is_some_and(|scalar| scalar == *part)),
                _ => false,
            }),
        }
    }

    /// The most steps for each byte of an event.
    fn steps(&self) -> u64 {
        match self {
            // A binary search.
            Self::OneOf(scalars) | Self::NoneOf(scalars) => 1 + u64::from(scalars.0.len().max(1).ilog2()),
            _ => 1,
        }
    }
}

/// Whether something holds for the value, or for one member of it where it is a list. It does not for what is missing.
fn any(value: Option<Item<'_>>, holds: impl Fn(Item<'_>) -> bool) -> bool {
    value.is_some_and(|value| if value.is_list() { members(value).any(holds) } else { holds(value) })
}

/// The members of a list that are looked at.
fn members(list: Item<'_>) -> impl Iterator<Item = Item<'_>> {
    list.children().take(MAX_MEMBERS)
}

fn text(value: Item<'_>) -> Option<&str> {
    match value.kind() {
        Kind::Text(text) => Some(text),
        _ => None,
    }
}

struct Clause {
    /// The clause of the object or the list that it stands in.
    above: Option<usize>,
    /// Its name there, or its number.
    step: Box<str>,
    test: Test,
}

/// The clauses of a filter, in its order.
pub(super) struct Clauses(Vec<Clause>);

impl Clauses {
    /// Those of a filter that matches all.
    pub fn new() -> Self {
        Self(vec![Clause { above: None, step: "".into(), test: Test::All(Vec::new()) }])
    }

    /// Adds a clause, which holds for all until it is set.
    pub fn add(&mut self, above: usize, step: &str) -> usize {
        self.0.push(Clause { above: Some(above), step: step.into(), test: Test::All(Vec::new()) });
        self.0.len() - 1
    }

    /// Says what a clause tests.
    pub fn set(&mut self, clause: usize, test: Test) {
        self.0[clause].test = test;
    }

    /// Where a clause stands in the filter, as a JSON pointer (RFC 6901).
    pub fn pointer(&self, clause: usize) -> String {
        let mut steps = Vec::new();
        let mut clause = &self.0[clause];
        while let Some(above) = clause.above {
            steps.push(clause.step.replace('~', "~0").replace('/', "~1"));
            clause = &self.0[above];
        }
        steps.iter().rev().flat_map(|step| ["/", step.as_str()]).collect()
    }

    /// The first condition that does not hold for an event.
    pub fn first_failure(&self, event: Item<'_>) -> Option<usize> {
        self.check(ROOT, Some(event)).err()
    }

    /// The most steps of a check for each byte of the event.
    pub fn steps(&self) -> u64 {
        let conditions = self.0.iter().filter_map(|clause| match &clause.test {
            Test::Compare(comparison) => Some(comparison),
            _ => None,
        });
        conditions.map(Comparison::steps).sum()
    }

    /// Checks a value. The error is the condition that did not hold.
    fn check(&self, clause: usize, value: Option<Item<'_>>) -> Result<(), usize> {
        self.check_test(clause, &self.0[clause].test, value)
    }

    /// The recursion is as deep as the filter and no deeper.
    fn check_test(&self, clause: usize, test: &Test, value: Option<Item<'_>>) -> Result<(), usize> {
        let hold = |holds: bool| if holds { Ok(()) } else { Err(clause) };
        match test {
            Test::Fields(fields) => match value {
                Some(list) if list.is_list() => self.check_members(clause, fields, list),
                _ => self.check_fields(fields, value),
            },
            Test::All(clauses) => clauses.iter().try_for_each(|clause| self.check(*clause, value)),
            Test::Any(clauses) => hold(clauses.iter().any(|clause| self.check(*clause, value).is_ok())),
            Test::Not(test) => hold(self.check_test(clause, test, value).is_err()),
            Test::Compare(comparison) => hold(comparison.holds(value)),
        }
    }

    fn check_fields(&self, fields: &[usize], value: Option<Item<'_>>) -> Result<(), usize> {
        fields.iter().try_for_each(|field| {
            let member = value.and_then(|value| value.field(&self.0[*field].step));
            self.check(*field, member)
        })
    }

    /// Where no member has all fields, the condition that failed is that of the member which came furthest; that of the
    /// object where the list is empty.
    fn check_members(&self, clause: usize, fields: &[usize], list: Item<'_>) -> Result<(), usize> {
        let mut furthest = clause;
        for member in members(list) {
            match self.check_fields(fields, Some(member)) {
                Ok(()) => return Ok(()),
                // Clauses are in the order of the filter.
                Err(failed) => furthest = furthest.max(failed),
            }
        }
        Err(furthest)
    }
}
