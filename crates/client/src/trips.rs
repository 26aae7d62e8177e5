//! An estimate of a peer's round trips: how long its answers take, and by how much that varies.
//!
//! Timeouts that judge a peer follow it. A constant that fits machines in one room calls every peer late that
//! stands on the other side of the earth, and asks a second one for everything.
//!
//! Source: RFC 6298, section 2: SRTT + 4 RTTVAR, with 1/8 and 1/4 as weights. Its least value of one second is
//! left to the callers, who add to the estimate what their peers' own work may take.

use std::time::Duration;

/// Expected of a peer that was never measured: the way to the other side of the earth and back.
pub const FAR: Duration = Duration::from_millis(300);
/// Round trips until a connection is open: one of TCP, two of the handshake.
pub const DIAL_TRIPS: u32 = 3;
/// Most that is ever expected: a peer that stopped for a minute is not waited for that long the next time.
const EXPECTED_MAX: Duration = Duration::from_secs(5);

/// An estimate from measured times; without one it expects [`FAR`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trips {
    /// Smoothed time, once there is a measurement.
    smooth: Option<Duration>,
    /// Smoothed difference between a measurement and `smooth`.
    varies: Duration,
    /// Shortest time lately: it grows by an eighth with each measurement that is longer.
    least: Duration,
}

impl Trips {
    /// Notes that an answer took this long.
    pub fn took(&mut self, time: Duration) {
        let time = time.min(EXPECTED_MAX);
        let (smooth, varies) = match self.smooth {
            None => (time, time / 2),
            Some(smooth) => ((smooth * 7 + time) / 8, (self.varies * 3 + smooth.abs_diff(time)) / 4),
        };
        self.least = if self.smooth.is_none() { time } else { time.min(self.least + self.least / 8) };
        (self.smooth, self.varies) = (Some(smooth), varies);
    }

    /// Notes that an answer was given up after this long: it takes longer than was expected. Without this only
    /// fast answers would be counted, and a peer that became slower would be called late for ever.
    pub(crate) fn gave_up(&mut self, waited: Duration) {
        if waited > self.expected(1) {
            self.took(waited);
        }
    }

    /// Time within which `trips` round trips, one after the other, end unless the peer works for an answer; at
    /// most [`EXPECTED_MAX`]. They do not all vary at once.
    pub fn expected(&self, trips: u32) -> Duration {
        let expected = self.smooth.map_or(FAR * trips, |smooth| smooth * trips + self.varies * 4);
        expected.min(EXPECTED_MAX)
    }

    /// Time that `trips` round trips take for the distance alone: as often the shortest measurement of late, which
    /// holds the least of the peer's own work. Zero before the first one; at most that of [`FAR`], so that a peer
    /// that answers slowly on purpose gains little time.
    pub fn distance(&self, trips: u32) -> Duration {
        self.least.min(FAR) * trips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    #[test]
    fn steady_round_trips_are_expected_as_they_are_and_nothing_is_expected_of_a_stranger_but_distance() {
        assert_eq!(Trips::default().expected(1), FAR);
        for trip in [1, 100, 300] {
            let mut trips = Trips::default();
            trips.took(ms(trip));
            assert_eq!(trips.expected(1), ms(trip) * 3, "one measurement says little");
            (0..40).for_each(|_| trips.took(ms(trip)));
            let expected = trips.expected(1);
            assert!(expected >= ms(trip) && expected < ms(trip) * 11 / 10, "{trip} ms: {expected:?}");
        }
    }

    #[test]
    fn answers_that_stall_are_expected_to_stall_again_and_it_is_forgotten() {
        let mut trips = Trips::default();
        (0..40).for_each(|_| trips.took(ms(300)));
        trips.took(ms(1_300));
        assert!(trips.expected(1) > ms(1_300), "the next stall is no surprise");
        (0..60).for_each(|_| trips.took(ms(300)));
        assert!(trips.expected(1) < ms(330), "{:?}", trips.expected(1));
    }

    #[test]
    fn a_peer_that_became_far_is_given_up_a_few_times_and_then_waited_for() {
        let mut trips = Trips::default();
        (0..40).for_each(|_| trips.took(ms(1)));
        let mut given_up = 0;
        // Its answers take 1.5 s now; they are waited for as long as expected and one second.
        while trips.expected(1) + ms(1_000) < ms(1_500) {
            let waited = trips.expected(1) + ms(1_000);
            trips.gave_up(waited);
            given_up += 1;
        }
        assert_eq!(given_up, 1);
        trips.gave_up(ms(1));
        assert!(trips.expected(1) > ms(500), "a short wait says nothing");
    }

    #[test]
    fn a_distance_is_the_shortest_time_of_late_and_work_does_not_count_for_it() {
        let mut trips = Trips::default();
        assert_eq!(trips.distance(10), Duration::ZERO, "nothing is known of a stranger");
        for _ in 0..20 {
            trips.took(ms(900));
            trips.took(ms(2));
        }
        assert_eq!(trips.distance(10), ms(20));
        (0..60).for_each(|_| trips.took(ms(100)));
        assert_eq!(trips.distance(10), ms(1_000), "it moved away");
        (0..60).for_each(|_| trips.took(ms(4_000)));
        assert_eq!(trips.distance(10), FAR * 10, "nobody is farther than the other side of the earth");
    }

    #[test]
    fn no_measurement_makes_a_peer_waited_for_without_end() {
        let mut trips = Trips::default();
        for _ in 0..1_000 {
            trips.took(Duration::MAX);
            trips.gave_up(Duration::MAX);
        }
        assert_eq!(trips.expected(1), EXPECTED_MAX);
    }
}
