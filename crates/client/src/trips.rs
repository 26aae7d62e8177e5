//! A peer's distance: the time of a round trip to it, without its own work.
//!
//! Timeouts that judge a peer are added to it. A constant that fits machines in one room calls every peer late that
//! stands on the other side of the earth, and asks a second one for everything.
//!
//! The shortest measurement of late is the distance. A smoothed one (RFC 6298) holds the peer's own work as well: it
//! grows with a peer's load, and a peer that answers slowly on purpose would buy time with it.

use std::time::Duration;

/// The way to the other side of the earth and back: expected of a peer that was never measured, and the most that is
/// granted to any.
pub const FAR: Duration = Duration::from_millis(300);
/// Round trips until a connection is open: one of TCP, two of the handshake.
pub const DIAL_TRIPS: u32 = 3;

/// The shortest round trip of late, once one was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trips(Option<Duration>);

impl Trips {
    /// Notes that an answer took this long. The distance grows by at most an eighth with each measurement. One of zero
    /// shows a clock that went back, and does not count.
    pub fn took(&mut self, time: Duration) {
        if !time.is_zero() {
            let grown = |least: Duration| least + (least / 8).max(Duration::from_micros(100));
            self.0 = Some(self.0.map_or(time, |least| time.min(grown(least))));
        }
    }

    /// Time that `trips` round trips take for the distance alone; zero before the first measurement.
    pub fn distance(&self, trips: u32) -> Duration {
        self.0.unwrap_or_default().min(FAR) * trips
    }

    /// As [`Self::distance`]; before the first measurement, that of a peer at [`FAR`].
    pub fn expected(&self, trips: u32) -> Duration {
        self.0.map_or(FAR * trips, |_| self.distance(trips))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    #[test]
    fn of_a_stranger_the_farthest_distance_is_expected_and_none_is_known() {
        let trips = Trips::default();
        assert_eq!((trips.expected(4), trips.distance(4)), (FAR * 4, Duration::ZERO));
    }

    #[test]
    fn a_distance_is_the_shortest_time_of_late_and_work_does_not_count_for_it() {
        let mut trips = Trips::default();
        for _ in 0..20 {
            trips.took(ms(900));
            trips.took(ms(2));
        }
        assert_eq!((trips.distance(10), trips.expected(10)), (ms(20), ms(20)));
        (0..60).for_each(|_| trips.took(ms(100)));
        assert_eq!(trips.distance(10), ms(1_000), "it moved away");
        (0..60).for_each(|_| trips.took(ms(4_000)));
        assert_eq!(trips.distance(10), FAR * 10, "nobody is farther than the other side of the earth");
        trips.took(ms(1));
        assert_eq!(trips.expected(10), ms(10));
    }

    #[test]
    fn a_clock_that_went_back_measures_nothing() {
        let mut trips = Trips::default();
        trips.took(Duration::ZERO);
        assert_eq!(trips.expected(1), FAR);
        trips.took(ms(300));
        trips.took(Duration::ZERO);
        assert_eq!(trips.distance(1), ms(300));
        trips.took(Duration::from_nanos(1));
        (0..200).for_each(|_| trips.took(ms(300)));
        assert_eq!(trips.distance(1), ms(300), "one short measurement is forgotten");
    }
}
