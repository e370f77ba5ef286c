//! Checks of published events against the filters of endpoints. A check may take long, and all accounts share the
//! writer: so the call that publishes makes the checks before it asks the writer.
//!
//! The writer decides by what is committed. Where an event lacks a check against a filter that an endpoint has now, it
//! hands the call back. The call learns the filters, makes the checks that it lacks, and comes again
//! (docs/decisions/0023-where-filters-are-checked.md).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::HashMap;

use super::errors::StoreError;
use super::values::PendingReply;
use crate::domain::channels::Channels;
use crate::domain::event::{Event, NewEvent};
use crate::domain::id::{AccountId, EndpointKey};
use crate::domain::payload_filter::{ParsedEvent, PayloadFilter};
use crate::domain::settings::DeliverySettings;
use crate::heavy::HeavyWork;
use crate::lock::RwLock;

/// Steps of checks that a call may make on a thread that serves requests. A step takes some 10 ns at most, so that this
/// is some milliseconds at most, and for ordinary events much less.
const CALL_WORK: u64 = 500_000;

/// Steps of one piece of heavy work: some tenths of a second at most, after which another account can have the thread.
/// One check alone may have more.
const PIECE_WORK: u64 = 20_000_000;

/// Steps of checks in one step of a replay. The replays of other accounts wait for it.
const REPLAY_WORK: u64 = 5_000_000;

/// Bytes of bodies that one step of a replay checks.
const REPLAY_BYTES: usize = 1 << 20;

/// How often the events of a call are checked: their account can change its filters meanwhile.
const MAX_ROUNDS: usize = 5;

/// Accounts and types whose filters are known here. When there are more, all are forgotten and learnt again.
const MAX_KNOWN: usize = 10_000;

/// An endpoint that has a filter, and its settings.
pub(super) type Filtered = (EndpointKey, Arc<DeliverySettings>);

/// The checks of one event: against the filter of which endpoint, and whether the event matches.
#[derive(Clone, Default)]
pub(super) struct Checks(Vec<(EndpointKey, PayloadFilter, bool)>);

impl Checks {
    /// Whether the event makes a delivery to an endpoint with these settings that subscribes to its type. A check that
    /// was not made counts as if the event matched: [`FilterChecks::is_checked`] comes before a write.
    pub fn admit(&self, event: &NewEvent, endpoint: EndpointKey, settings: &DeliverySettings) -> bool {
        let matches = |filter| self.of(endpoint, filter) != Some(false);
        settings.channels_admit(event) && settings.filter.as_ref().is_none_or(matches)
    }

    fn of(&self, endpoint: EndpointKey, filter: &PayloadFilter) -> Option<bool> {
        let check = self.0.iter().find(|(of, checked, _)| *of == endpoint && checked == filter);
        check.map(|(_, _, matches)| *matches)
    }

    /// The endpoint's filter, if the event is yet to be checked against it.
    fn lacks<'s>(
        &self,
        event: &NewEvent,
        endpoint: EndpointKey,
        settings: &'s DeliverySettings,
    ) -> Option<&'s PayloadFilter> {
        let filter = settings.filter.as_ref().filter(|_| settings.channels_admit(event))?;
        self.of(endpoint, filter).is_none().then_some(filter)
    }
}

/// The checks of an event that was not checked.
static NO_CHECKS: Checks = Checks(Vec::new());

/// The checks of the events of a call; nothing where no filter is known.
#[derive(Clone, Default)]
pub(super) struct CallChecks(Vec<Checks>);

impl CallChecks {
    /// Those of one event, by its number in the call.
    pub fn of(&self, number: usize) -> &Checks {
        self.0.get(number).unwrap_or(&NO_CHECKS)
    }
}

/// A call that publishes, on its way to the writer.
pub(super) struct Publishing {
    pub events: Vec<NewEvent>,
    pub checks: CallChecks,
    pub pending_reply: Option<PendingReply<Vec<Event>>>,
}

/// What the writer made of a call.
pub(super) enum Intaken {
    /// Its events are on disk.
    Written(Vec<Event>),
    /// Nothing: some checks are to be made before.
    Unchecked(Box<Publishing>),
}

/// The filters that calls know, and the threads for slow checks.
#[derive(Default)]
pub(super) struct FilterChecks {
    /// Whether a filter was ever known. Where none is used, nobody asks for more than this.
    is_used: AtomicBool,
    known: RwLock<Known>,
    heavy: HeavyWork,
}

/// The endpoints with filters that subscribe to a type, by account and type. It may be out of date: the writer checks.
#[derive(Default)]
struct Known {
    accounts: HashMap<AccountId, HashMap<String, Arc<[Filtered]>>>,
    pairs: usize,
}

impl Known {
    fn of(&self, event: &NewEvent) -> Option<&Arc<[Filtered]>> {
        self.accounts.get(&event.account)?.get(&event.event_type)
    }

    fn set(&mut self, event: &NewEvent, filtered: Vec<Filtered>) {
        if self.pairs >= MAX_KNOWN && self.of(event).is_none() {
            *self = Self::default();
        }
        let types = self.accounts.entry(event.account).or_default();
        self.pairs -= usize::from(types.remove(&event.event_type).is_some());
        if !filtered.is_empty() {
            types.insert(event.event_type.clone(), filtered.into());
            self.pairs += 1;
        }
        if types.is_empty() {
            self.accounts.remove(&event.account);
        }
    }
}

impl FilterChecks {
    /// The threads for slow checks, which other heavy work shares.
    pub fn heavy(&self) -> HeavyWork {
        self.heavy.clone()
    }

    /// Checks the events of a call and has them written; again where the writer hands the call back.
    pub async fn accept<F>(
        &self,
        events: Vec<NewEvent>,
        pending_reply: Option<PendingReply<Vec<Event>>>,
        write: impl Fn(Publishing) -> F,
    ) -> Result<Vec<Event>, StoreError>
    where
        F: Future<Output = Result<Intaken, StoreError>>,
    {
        let mut call = Publishing { events, checks: CallChecks::default(), pending_reply };
        for _ in 0..MAX_ROUNDS {
            let checked = self.check(call).await?;
            match write(checked).await? {
                Intaken::Written(accepted) => return Ok(accepted),
                Intaken::Unchecked(back) => call = *back,
            }
        }
        Err(StoreError::FiltersBusy)
    }

    /// For the writer: whether the events of a call were checked against every filter that matters now. `filtered`
    /// finds the endpoints with filters that subscribe to an event's type; calls know them from now on.
    pub fn is_checked(
        &self,
        call: &Publishing,
        has_filters: bool,
        filtered: impl Fn(&NewEvent) -> Vec<Filtered>,
    ) -> bool {
        if !has_filters && call.checks.0.is_empty() {
            return true;
        }
        let mut all = true;
        for (number, event) in call.events.iter().enumerate() {
            let (checks, filtered) = (call.checks.of(number), filtered(event));
            let wanted = filtered.iter().filter(|(_, settings)| settings.channels_admit(event)).count();
            let lacks = filtered.iter().any(|(key, settings)| checks.lacks(event, *key, settings).is_some());
            // A check more than is wanted is one that no call needs any longer.
            if lacks || checks.0.len() != wanted {
                self.known.write().set(event, filtered);
                self.is_used.store(true, Ordering::Relaxed);
            }
            all &= !lacks;
        }
        all
    }

    /// Makes the checks that a call lacks, as far as the filters are known here.
    async fn check(&self, call: Publishing) -> Result<Publishing, StoreError> {
        if !self.is_used.load(Ordering::Relaxed) {
            return Ok(call);
        }
        let filtered = self.filtered(&call.events);
        if filtered.is_empty() {
            return Ok(call);
        }
        let mut checking = Checking::new(call, filtered);
        let is_heavy = checking.work() > CALL_WORK;
        while let Some(account) = checking.account() {
            if is_heavy {
                let go_on = move || {
                    checking.go_on();
                    checking
                };
                checking = self.heavy.run(Some(account), go_on).await?;
            } else {
                checking.go_on();
            }
        }
        Ok(checking.call)
    }

    /// What is known for each of the events; nothing where nothing is known for any.
    fn filtered(&self, events: &[NewEvent]) -> Vec<Arc<[Filtered]>> {
        let known = self.known.read();
        if events.iter().all(|event| known.of(event).is_none()) {
            return Vec::new();
        }
        events.iter().map(|event| known.of(event).cloned().unwrap_or_default()).collect()
    }
}

/// A call whose events are being checked, one after the other. Another thread can go on.
struct Checking {
    call: Publishing,
    /// For each event, the filters that it is checked against.
    filtered: Vec<Arc<[Filtered]>>,
    /// The event that comes next, and which of its filters.
    next: (usize, usize),
}

impl Checking {
    fn new(mut call: Publishing, filtered: Vec<Arc<[Filtered]>>) -> Self {
        debug_assert_eq!(call.events.len(), filtered.len(), "each event has its filters");
        call.checks.0.resize_with(filtered.len(), Checks::default);
        Self { call, filtered, next: (0, 0) }
    }

    /// The most steps of all the checks.
    fn work(&self) -> u64 {
        let events = self.call.events.iter().zip(&self.filtered).filter(|(_, filtered)| !filtered.is_empty());
        let work = events.map(|(event, filtered)| {
            let filters = filtered.iter().filter_map(|(_, settings)| settings.filter.as_ref());
            PayloadFilter::work(size(event), filters)
        });
        work.fold(0, u64::saturating_add)
    }

    /// Whose event comes next; `None` at the end.
    fn account(&self) -> Option<AccountId> {
        self.call.events.get(self.next.0).map(|event| event.account)
    }

    /// Makes the next checks: one piece of work at most, and of one account.
    fn go_on(&mut self) {
        let Some(account) = self.account() else { return };
        let Self { call, filtered, next: (at, of_event) } = self;
        let mut left = PIECE_WORK;
        while let Some(event) = call.events.get(*at).filter(|event| event.account == account) {
            let checks = &mut call.checks.0[*at];
            let mut parsed = None;
            for (endpoint, settings) in filtered[*at].iter().skip(*of_event) {
                if let Some(filter) = checks.lacks(event, *endpoint, settings) {
                    let work = PayloadFilter::work(size(event), [filter]);
                    // The first check is made in any case.
                    if work > left && left < PIECE_WORK {
                        return;
                    }
                    left = left.saturating_sub(work);
                    // All filters look into an event that is read once.
                    let parsed = parsed.get_or_insert_with(|| parse(event));
                    checks.0.push((*endpoint, filter.clone(), filter.matches(parsed)));
                }
                *of_event += 1;
            }
            (*at, *of_event) = (*at + 1, 0);
        }
    }
}

fn parse(event: &NewEvent) -> ParsedEvent<'_> {
    ParsedEvent::of_message(&event.event_type, &event.body, event.channels.as_ref())
}

/// The bytes that a filter can look at, and some more.
fn size(event: &NewEvent) -> usize {
    let channels = event.channels.iter().flat_map(Channels::names);
    event.body.len() + channels.map(String::len).sum::<usize>()
}

/// Bytes of bodies that one step of a replay checks against this filter; one body may be beyond that.
pub(super) fn replay_bytes(filter: &PayloadFilter) -> usize {
    let steps_of_a_byte = PayloadFilter::work(1, [filter]);
    usize::try_from(REPLAY_WORK / steps_of_a_byte).map_or(REPLAY_BYTES, |bytes| bytes.clamp(1, REPLAY_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::message;
    use crate::domain::time::Timestamp;

    fn account(n: u8) -> AccountId {
        AccountId::from_random([n; 16])
    }

    fn event(account: AccountId, data: &str) -> NewEvent {
        let now = Timestamp::default();
        let body = message("a.b", now, data);
        NewEvent {
            account,
            event_type: "a.b".into(),
            occurred_at: now,
            validation_id: None,
            channels: None,
            trace: None,
            body,
        }
    }

    fn filtered(key: i64, filter: &str) -> Filtered {
        let filter = Some(PayloadFilter::parse(filter).expect("a filter"));
        (EndpointKey(key), Arc::new(DeliverySettings { filter, ..DeliverySettings::default() }))
    }

    fn call(events: Vec<NewEvent>) -> Publishing {
        Publishing { events, checks: CallChecks::default(), pending_reply: None }
    }

    /// A writer that knows these endpoints: it hands a call back, or says for each of its events whom it goes to.
    fn write(checks: &FilterChecks, known: &[Filtered], call: Publishing) -> Result<Vec<Vec<i64>>, Box<Publishing>> {
        if !checks.is_checked(&call, !known.is_empty(), |_| known.to_vec()) {
            return Err(Box::new(call));
        }
        let admitted = call.events.iter().enumerate().map(|(number, event)| {
            let admitted = known.iter().filter(|(key, settings)| call.checks.of(number).admit(event, *key, settings));
            admitted.map(|(key, _)| key.0).collect()
        });
        Ok(admitted.collect())
    }

    async fn checked(checks: &FilterChecks, call: Publishing) -> Publishing {
        checks.check(call).await.expect("checked")
    }

    #[tokio::test]
    async fn a_call_is_handed_back_until_it_was_checked_against_the_filters_of_now() {
        let (checks, one) = (FilterChecks::default(), account(1));
        let events = || vec![event(one, r#"{"n":1}"#), event(one, r#"{"n":2}"#)];
        let before = [filtered(7, r#"{"data":{"n":1}}"#), filtered(8, r#"{"data":{"n":{"$gte":1}}}"#)];
        let first = checked(&checks, call(events())).await;
        assert!(first.checks.0.is_empty(), "nothing is known");
        let back = write(&checks, &before, first).expect_err("handed back");
        let again = checked(&checks, *back).await;
        assert_eq!(write(&checks, &before, again).ok(), Some(vec![vec![7, 8], vec![8]]));
        // Known from now on.
        let known = checked(&checks, call(events())).await;
        // One is changed before it is written: the other need not be checked again.
        let after = [filtered(7, r#"{"data":{"n":2}}"#), before[1].clone()];
        let back = write(&checks, &after, known).expect_err("handed back");
        let again = checked(&checks, *back).await;
        assert_eq!(again.checks.of(0).0.len(), 3, "two, and one that is new");
        assert_eq!(write(&checks, &after, again).ok(), Some(vec![vec![8], vec![7, 8]]));
        // What is removed is forgotten.
        let known = checked(&checks, call(events())).await;
        assert_eq!(write(&checks, &[], known).ok(), Some(vec![vec![], vec![]]));
        assert!(checked(&checks, call(events())).await.checks.0.is_empty());
        assert_eq!((checks.known.read().pairs, checks.known.read().accounts.len()), (0, 0));
    }

    #[tokio::test]
    async fn an_event_is_checked_where_the_channels_let_it_through() {
        let (checks, one) = (FilterChecks::default(), account(1));
        let channels = |name: &str| Channels::parse(vec![name.to_owned()], 1);
        let (key, settings) = filtered(7, r#"{"channels":"a"}"#);
        let known = [(key, Arc::new(DeliverySettings { channels: channels("a"), ..(*settings).clone() }))];
        let carrying = |name: &str| NewEvent { channels: channels(name), ..event(one, "{}") };
        let events = || vec![carrying("b"), event(one, "{}")];
        assert_eq!(write(&checks, &known, call(events())).ok(), Some(vec![vec![], vec![]]), "nothing is to be checked");
        let back = write(&checks, &known, call(vec![carrying("a")])).expect_err("handed back");
        let again = checked(&checks, *back).await;
        assert_eq!(write(&checks, &known, again).ok(), Some(vec![vec![7]]));
    }

    #[test]
    fn long_checks_are_made_in_pieces_of_one_account() {
        let large = format!(r#"{{"n":1,"text":"{}"}}"#, "x".repeat(200_000));
        let list: Vec<String> = (0..900).map(|n| n.to_string()).collect();
        let filter = format!(r#"{{"data":{{"n":{{"$in":[{}]}}}}}}"#, list.join(","));
        let known: Arc<[Filtered]> = (0..30).map(|key| filtered(key, &filter)).collect();
        let events = vec![event(account(1), &large), event(account(1), "{}"), event(account(2), &large)];
        let mut checking = Checking::new(call(events), vec![known; 3]);
        assert!(checking.work() > CALL_WORK);
        let mut pieces = Vec::new();
        while let Some(of) = checking.account() {
            let before = checking.next;
            checking.go_on();
            assert!(checking.next > before, "each piece goes on");
            pieces.push(of);
        }
        let of = |n| pieces.iter().filter(|of| **of == account(n)).count();
        assert!(of(1) > 1 && of(2) > 1 && pieces.is_sorted(), "{pieces:?}");
        let matched = [0, 1, 2].map(|n| checking.call.checks.of(n).0.iter().filter(|check| check.2).count());
        assert_eq!(matched, [30, 0, 30]);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let mut known = Known::default();
        for n in 0..=MAX_KNOWN {
            let event = NewEvent { event_type: format!("a.n{n}"), ..event(account(1), "{}") };
            known.set(&event, vec![filtered(7, "{}")]);
            known.set(&event, vec![filtered(8, "{}")]);
        }
        assert_eq!((known.pairs, known.accounts[&account(1)].len()), (1, 1));
    }

    #[test]
    fn a_step_of_a_replay_checks_fewer_bytes_against_a_longer_filter() {
        let filter = |conditions: usize| {
            let fields: Vec<_> = (0..conditions).map(|n| format!(r#""f{n}":1"#)).collect();
            PayloadFilter::parse(&format!(r#"{{"data":{{{}}}}}"#, fields.join(","))).expect("a filter")
        };
        let [short, long] = [1, 32].map(|conditions| replay_bytes(&filter(conditions)));
        assert_eq!(short, REPLAY_BYTES);
        assert!(long < short && long > 100_000, "{long}");
    }
}
