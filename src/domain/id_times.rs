//! When a time-ordered id was made. The id tells it, as long as the clock was right when it was made.
//!
//! Ids never go back. After a clock that was ahead has been set right, new ids go on after the greatest one, and so
//! they are ahead of the time. An offset says by how much, from which id on. Times never fall from one id to the next,
//! so that a span of time is a span of ids.

use std::time::Duration;

use super::id::{clock_of, first_at_clock};
use super::time::Timestamp;

/// By how much the greatest id may be ahead of the clock without an offset. Time servers step a clock by less than
/// this; times within the tolerance are wrong by as much, and only until the clock has caught up.
pub const TOLERANCE: Duration = Duration::from_secs(60);

/// The least distance, in lengths of a history, at which a history without anything before it is taken for one that was
/// made by a clock that was ahead. A clock that is behind shows the same picture; at this distance a mistake concerns a
/// hundredth of the distance.
const FAR: u32 = 100;

/// 2026-01-01: this program did not exist before. A clock that shows an earlier time is behind.
const EARLIEST: i64 = 1_767_225_600_000;

/// From this id on, an id's own clock was ahead by so much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offset {
    /// The first id.
    pub first_id: i64,
    /// By how many milliseconds.
    pub offset_ms: i64,
}

/// The times of ids: without offsets, an id's own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdTimes {
    segments: Vec<Segment>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Segment {
    offset: Offset,
    /// The time of the last id before it. No id of the segment has an earlier one.
    floor: Timestamp,
}

/// What a writer finds when the greatest id is ahead of its clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MadeAhead {
    /// The greatest id whose time is not ahead; 0 where there is none.
    pub before: i64,
    /// The first id after it.
    pub first: i64,
    /// The greatest id.
    pub last: i64,
    /// When the oldest account was created, by the clock of then.
    pub oldest_account: Option<Timestamp>,
}

impl IdTimes {
    /// From offsets in any order.
    pub fn new(mut offsets: Vec<Offset>) -> Self {
        offsets.sort_unstable_by_key(|offset| offset.first_id);
        let mut times = Self::default();
        for offset in offsets {
            // What is stored may be any number.
            let floor = times.of(offset.first_id.saturating_sub(1));
            times.segments.push(Segment { offset, floor });
        }
        times
    }

    /// The offsets, in the order of their ids.
    pub fn offsets(&self) -> impl Iterator<Item = Offset> {
        self.segments.iter().map(|segment| segment.offset)
    }

    /// When an id was made.
    pub fn of(&self, id: i64) -> Timestamp {
        let after = self.segments.partition_point(|segment| segment.offset.first_id <= id);
        match after.checked_sub(1).map(|index| self.segments[index]) {
            Some(Segment { offset, floor }) => earlier(clock_of(id), offset.offset_ms).max(floor),
            None => clock_of(id),
        }
    }

    /// The smallest id that was made at `time` or later.
    pub fn first_at(&self, time: Timestamp) -> i64 {
        let end = self.segments.first().map_or(i64::MAX, |segment| segment.offset.first_id);
        let mut first = first_at_clock(time);
        if first < end {
            return first;
        }
        for (index, Segment { offset, floor }) in self.segments.iter().enumerate() {
            let end = self.segments.get(index + 1).map_or(i64::MAX, |next| next.offset.first_id);
            let of_segment = first_at_clock(earlier(time, -offset.offset_ms)).max(offset.first_id);
            first = if *floor >= time { offset.first_id } else { of_segment };
            if first < end {
                break;
            }
        }
        first
    }

    /// By how much the greatest id is ahead of the clock.
    pub fn ahead(&self, last: i64, now: Timestamp) -> Duration {
        self.of(last).since(now)
    }

    /// The times from here on, where a clock was ahead that made the ids from `ahead.first` on, and is right now.
    /// `None` where it may as well be the clock of now that is behind: then times stand still until it has caught up.
    ///
    /// It was ahead where, moved back, the ids have room between those before them and now. Ids that a right clock has
    /// made follow each other without such a gap.
    pub fn set_right(&self, ahead: MadeAhead, now: Timestamp) -> Option<Self> {
        debug_assert!(ahead.before < ahead.first && ahead.first <= ahead.last, "{ahead:?}");
        let (first, last) = (self.of(ahead.first), self.of(ahead.last));
        let by = last.since(now);
        let began = first.minus(by);
        let since = if ahead.before > 0 { Some(self.of(ahead.before)) } else { ahead.oldest_account };
        let has_room = since.is_none_or(|since| began.plus(TOLERANCE) >= since);
        let is_far = |begin: Timestamp| last.since(begin).saturating_mul(FAR) <= by;
        let was_ahead = match since {
            _ if now.as_millis() < EARLIEST => false,
            Some(_) if ahead.before > 0 => has_room,
            // The account is as old as the ids, and was created by the same clock.
            Some(account) if account > now => is_far(account.min(first)),
            _ => has_room && is_far(first),
        };
        if !was_ahead {
            return None;
        }
        let first_id = ahead.before + 1;
        let offset_ms = clock_of(ahead.last).as_millis() - now.as_millis();
        let before = self.offsets().filter(|offset| offset.first_id < first_id);
        Some(Self::new(before.chain([Offset { first_id, offset_ms }]).collect()))
    }
}

fn earlier(time: Timestamp, by_ms: i64) -> Timestamp {
    Timestamp::from_millis(time.as_millis().saturating_sub(by_ms))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const SECOND: i64 = 1_000;
    const HOUR: i64 = 3_600 * SECOND;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn id(millis: i64) -> i64 {
        first_at_clock(at(millis))
    }

    /// Times after ids at `before`, and then from `first` to `last`, have been found at `NOW`.
    fn found(before: Option<i64>, (first, last): (i64, i64), oldest_account: i64) -> Option<IdTimes> {
        let ahead = MadeAhead {
            before: before.map_or(0, id),
            first: id(first),
            last: id(last),
            oldest_account: Some(at(oldest_account)),
        };
        IdTimes::default().set_right(ahead, at(NOW))
    }

    #[test]
    fn what_a_clock_ahead_has_made_gets_about_its_real_time_and_new_ids_get_the_time_of_now() {
        let island = (NOW + 10 * YEAR - SECOND, NOW + 10 * YEAR);
        let times = found(Some(NOW - HOUR), island, NOW - YEAR).expect("set right");
        assert_eq!(times.of(id(NOW - HOUR)), at(NOW - HOUR), "what was made before stays");
        assert_eq!((times.of(id(island.0)), times.of(id(island.1))), (at(NOW - SECOND), at(NOW)));
        let mut ids = super::super::id::IdSequence::after(id(island.1), times.clone());
        let next = ids.next(at(NOW + SECOND));
        assert!(next > id(island.1), "ids only go on");
        assert_eq!(times.of(next), at(NOW + SECOND));
        assert_eq!(times.first_at(at(NOW - DAY)), id(NOW - DAY));
    }

    #[test]
    fn a_second_mistake_is_set_right_too() {
        let times = found(Some(NOW - HOUR), (NOW + YEAR, NOW + YEAR), NOW - YEAR).expect("set right");
        let (before, first) = (times.first_at(at(NOW + HOUR)), times.first_at(at(NOW + 3 * YEAR)));
        let ahead = MadeAhead { before, first, last: first, oldest_account: Some(at(NOW)) };
        let times = times.set_right(ahead, at(NOW + 2 * HOUR)).expect("set right");
        assert_eq!((times.of(before), times.of(first)), (at(NOW + HOUR), at(NOW + 2 * HOUR)));
        assert_eq!(times.of(times.first_at(at(NOW + DAY))), at(NOW + DAY));
    }

    #[test]
    fn a_clock_that_is_behind_moves_no_history() {
        let steady = |since: i64, by: i64| found(Some(NOW - SECOND), (NOW + SECOND, NOW + by), since);
        for by in [HOUR, DAY, YEAR] {
            assert_eq!(steady(NOW - YEAR, by), None, "ids without a gap");
        }
        let month = (NOW + 20 * DAY, NOW + 30 * DAY);
        assert_eq!(found(None, month, NOW - YEAR), None, "the rest has left with its retention");
        assert_eq!(found(None, (NOW + 56 * YEAR - DAY, NOW + 56 * YEAR), NOW + 55 * YEAR), None, "an older account");
        let ahead = MadeAhead { before: 0, first: id(NOW), last: id(NOW + HOUR), oldest_account: Some(at(NOW)) };
        assert_eq!(IdTimes::default().set_right(ahead, at(0)), None, "a clock without a battery");
    }

    #[test]
    fn a_history_that_has_nothing_before_it_and_is_far_away_was_made_ahead() {
        let island = (NOW + 10 * YEAR, NOW + 10 * YEAR + HOUR);
        for oldest_account in [NOW - DAY, island.0 - SECOND] {
            let times = found(None, island, oldest_account).expect("set right");
            assert_eq!(times.of(id(island.1)), at(NOW));
        }
    }

    prop_compose! {
        fn times()(
            // With the times of the tests below they stay before the last id, which is of the year 2248.
            offsets in proptest::collection::vec((0i64..4 * NOW, -NOW..3 * NOW / 2), 0..5)
        ) -> IdTimes {
            let offset = |(first, offset_ms)| Offset { first_id: id(first) + 7, offset_ms };
            IdTimes::new(offsets.into_iter().map(offset).collect())
        }
    }

    proptest! {
        #[test]
        fn times_never_fall_from_one_id_to_a_later_one(times in times(), one in 0i64..5 * NOW, other in 0i64..5 * NOW) {
            let (one, other) = (id(one.min(other)), id(one.max(other)));
            prop_assert!(times.of(one) <= times.of(other));
            for Offset { first_id, .. } in times.offsets() {
                prop_assert!(times.of(first_id - 1) <= times.of(first_id));
            }
        }

        #[test]
        fn the_first_id_at_a_time_is_the_first(times in times(), time in 0i64..3 * NOW) {
            let first = times.first_at(at(time));
            prop_assert!(times.of(first) >= at(time));
            prop_assert!(first == 0 || times.of(first - 1) < at(time));
        }

        #[test]
        fn new_ids_have_the_time_of_the_clock_that_was_set_right(
            gap in 0i64..DAY, by in 120_000i64..20 * YEAR, long in 0i64..HOUR, later in 1i64..YEAR
        ) {
            let last = NOW + by;
            let times = found(Some(NOW - gap - long), (last - long, last), NOW - YEAR).expect("set right");
            prop_assert_eq!(times.of(times.first_at(at(NOW + later))), at(NOW + later));
            prop_assert!(times.first_at(at(NOW + later)) > id(last));
            prop_assert_eq!(times.of(id(last)), at(NOW));
        }
    }
}
