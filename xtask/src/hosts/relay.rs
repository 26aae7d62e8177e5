//! A relay between machines, which makes the way long, lossy or one-way.
//!
//! ```text
//!   a0  eth0 ══╗  delay, loss, cuts  ╔══ eth0  a1
//!   a2  eth0 ══╬═══►   relay   ◄═════╬══ eth0  a3      eth0 is a TAP device: the kernel hands each frame to the
//!       left ══╝                     ╚══ right         relay, and the relay decides when it arrives, if it does
//! ```
//!
//! Frames between machines of one side pass at once; between the sides they take the set time each way, and the
//! set part of them is lost, drawn from a seed. A machine can also be cut off in one direction alone. Bytes are
//! never changed, and frames never overtake each other on their way from one side to the other.

use super::world::{Side, ip, namespace};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};
use tappers::Tap;

/// Name of the device on a machine.
pub(super) const DEVICE: &str = "eth0";
/// Longest frame of Ethernet with its header, which has room for a tag.
const FRAME_MAX: usize = 1_518;
/// Most frames on their way; the ones that come then are lost, as in a full buffer of a router.
const FRAMES_MAX: usize = 65_536;
/// Most frames that wait for the relay to look at them; a machine that sends more waits, as for a slow wire.
const WAITING_MAX: usize = 1_024;
/// Time between two looks at a relay on which nothing is on its way.
const IDLE: Duration = Duration::from_secs(1);
/// Parts of a whole in which a loss is given.
const WHOLE: u64 = 1_000;

/// Address of a device on the wire.
type Mac = [u8; 6];

/// A direction in which nothing passes for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nothing that the machine sends arrives anywhere.
    Outward,
    /// Nothing that others send arrives at the machine.
    Inward,
}

/// The way between the two sides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Time from one side to the other.
    pub(super) delay: Duration,
    /// Thousandths of the frames that are lost in each direction.
    pub(super) loss: u64,
}

/// Frames that the relay has seen between the sides or at a cut.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Frames that crossed from one side to the other.
    pub(super) crossed: u64,
    /// Frames that were drawn to be lost, or found no room.
    pub(super) lost: u64,
    /// Frames that a cut swallowed.
    pub(super) cut: u64,
}

/// A frame with the time of its arrival, the order in which it came, and its port.
type Due = (Instant, u64, usize, Vec<u8>);

/// A message to the relay's thread.
enum Message {
    /// A machine is there; its port is the next number.
    Plug(Port, Arc<Tap>),
    /// A machine sent a frame.
    Frame(usize, Vec<u8>),
    /// A port is cut, or joined again.
    Cut(usize, Option<Cut>),
    /// The frames so far are asked for.
    Counts(Sender<Counts>),
}

struct Port {
    side: Side,
    cut: Option<Cut>,
}

/// The state of the relay's thread.
struct State {
    way: Way,
    ports: Vec<Port>,
    /// Ports by the address that was seen there.
    places: BTreeMap<Mac, usize>,
    /// Frames on their way, the first to arrive on top.
    due: BinaryHeap<Reverse<Due>>,
    came: u64,
    random: u64,
    counts: Counts,
}

/// The relay. Dropping it ends its thread; a reader ends when the device of its machine is deleted.
pub(super) struct Relay {
    /// Machines by their ports.
    names: Vec<String>,
    messages: SyncSender<Message>,
}

impl State {
    fn new(way: Way, seed: u64) -> Self {
        let (ports, places, due) = (Vec::new(), BTreeMap::new(), BinaryHeap::new());
        let random = seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15);
        Self { way, ports, places, due, came: 0, random, counts: Counts::default() }
    }

    /// True for the drawn part of the calls (xorshift64*).
    fn draw(&mut self) -> bool {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % WHOLE < self.way.loss
    }

    /// Takes a frame that a machine sent, and puts it on its way to each machine that it is for.
    fn take(&mut self, from: usize, frame: &[u8], now: Instant) {
        let (Some(to), Some(sender)) = (mac(frame, 0), mac(frame, 6)) else { return };
        self.places.insert(sender, from);
        // The lowest bit of the first byte marks a frame for a group, such as a question for an address.
        let one = self.places.get(&to).copied().filter(|_| to[0] & 1 == 0);
        let all = one.map_or(0..self.ports.len(), |port| port..port + 1);
        for port in all.filter(|port| *port != from) {
            self.send(from, port, frame, now);
        }
    }

    fn send(&mut self, from: usize, to: usize, frame: &[u8], now: Instant) {
        if self.ports[from].cut == Some(Cut::Outward) || self.ports[to].cut == Some(Cut::Inward) {
            self.counts.cut += 1;
            return;
        }
        let crosses = self.ports[from].side != self.ports[to].side;
        if self.due.len() >= FRAMES_MAX || (crosses && self.draw()) {
            self.counts.lost += 1;
            return;
        }
        self.counts.crossed += u64::from(crosses);
        let delay = if crosses { self.way.delay } else { Duration::ZERO };
        self.came += 1;
        self.due.push(Reverse((now + delay, self.came, to, frame.to_vec())));
    }

    /// The next frame that is due with its port, or the time until one is.
    fn next(&mut self, now: Instant) -> Result<(usize, Vec<u8>), Duration> {
        match self.due.peek().map(|Reverse((at, ..))| at.saturating_duration_since(now)) {
            None => Err(IDLE),
            Some(wait) if !wait.is_zero() => Err(wait),
            Some(_) => self.due.pop().map(|Reverse((_, _, port, frame))| (port, frame)).ok_or(IDLE),
        }
    }
}

/// Relays until nobody can send a message any more.
fn run(mut state: State, messages: &Receiver<Message>) {
    let mut devices: Vec<Arc<Tap>> = Vec::new();
    loop {
        let wait = match state.next(Instant::now()) {
            Ok((port, frame)) => {
                // A device that is down takes nothing: the frame is lost as on a wire without a machine.
                let _ = devices[port].send(&frame);
                continue;
            }
            Err(wait) => wait,
        };
        match messages.recv_timeout(wait) {
            Ok(Message::Plug(port, device)) => {
                state.ports.push(port);
                devices.push(device);
            }
            Ok(Message::Frame(port, frame)) => state.take(port, &frame, Instant::now()),
            Ok(Message::Cut(port, cut)) => state.ports[port].cut = cut,
            Ok(Message::Counts(reply)) => drop(reply.send(state.counts)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The address in a frame's header at this place.
fn mac(frame: &[u8], from: usize) -> Option<Mac> {
    frame.get(from..from + 6)?.try_into().ok()
}

impl Relay {
    /// A relay without machines, with the loss drawn from a seed.
    pub(super) fn new(way: Way, seed: u64) -> Self {
        let (messages, received) = mpsc::sync_channel(WAITING_MAX);
        thread::spawn(move || run(State::new(way, seed), &received));
        Self { names: Vec::new(), messages }
    }

    /// Makes the device of a machine, moves it to the machine's namespace, and takes its frames from now on.
    pub(super) fn plug(&mut self, name: &str, side: Side) -> Result<(), String> {
        let failed = |error| format!("{name}: a TAP device: {error}");
        let device = Arc::new(Tap::new().map_err(failed)?);
        let made = device.name().map_err(failed)?.name();
        ip(&["link", "set", &made.to_string_lossy(), "netns", &namespace(name), "name", DEVICE])?;
        self.send(Message::Plug(Port { side, cut: None }, device.clone()))?;
        let (port, messages) = (self.names.len(), self.messages.clone());
        self.names.push(name.into());
        thread::spawn(move || read(&device, port, &messages));
        Ok(())
    }

    fn send(&self, message: Message) -> Result<(), String> {
        self.messages.send(message).map_err(|_| "the relay has ended".into())
    }

    /// Cuts a machine off in one direction, or joins it again.
    pub(super) fn cut(&self, name: &str, cut: Option<Cut>) -> Result<(), String> {
        let port = self.names.iter().position(|other| other == name);
        self.send(Message::Cut(port.ok_or_else(|| format!("the relay has no machine {name}"))?, cut))
    }

    /// The frames so far.
    pub(super) fn counts(&self) -> Result<Counts, String> {
        let (reply, counts) = mpsc::channel();
        self.send(Message::Counts(reply))?;
        counts.recv().map_err(|error| error.to_string())
    }
}

/// Takes the frames of a machine until its device or the relay is gone.
fn read(device: &Tap, port: usize, messages: &SyncSender<Message>) {
    let mut frame = [0; FRAME_MAX];
    while let Ok(length) = device.recv(&mut frame) {
        if messages.send(Message::Frame(port, frame[..length].to_vec())).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// A relay between two machines on the left (0, 1) and one on the right (2), each seen once.
    fn state(loss: u64, now: Instant) -> State {
        let mut state = State::new(Way { delay: SHORT, loss: 0 }, 1);
        for side in [Side::Left, Side::Left, Side::Right] {
            state.ports.push(Port { side, cut: None });
        }
        for port in 0..3 {
            state.take(port, &frame(0xFF, port, 0), now);
        }
        (state.due, state.counts, state.way.loss) = (BinaryHeap::new(), Counts::default(), loss);
        state
    }

    /// A frame from a port to another one, or to all (0xFF), with one byte of content.
    fn frame(to: usize, from: usize, content: u8) -> Vec<u8> {
        let address = |port: usize| if port == 0xFF { [0xFF; 6] } else { [2, 0, 0, 0, 0, port as u8] };
        [&address(to)[..], &address(from), &[8, 0, content]].concat()
    }

    /// The ports and contents of all frames that are due by then.
    fn arrived(state: &mut State, now: Instant) -> Vec<(usize, u8)> {
        std::iter::from_fn(|| state.next(now).ok()).map(|(port, frame)| (port, frame[14])).collect()
    }

    #[test]
    fn frames_reach_their_machine_alone_at_once_on_a_side_and_late_across() {
        let now = Instant::now();
        let mut state = state(0, now);
        state.take(0, &frame(1, 0, 10), now);
        for content in 20..40 {
            state.take(0, &frame(2, 0, content), now);
        }
        assert_eq!(arrived(&mut state, now), [(1, 10)]);
        assert_eq!(state.next(now), Err(SHORT));
        let crossed: Vec<(usize, u8)> = (20..40).map(|content| (2, content)).collect();
        assert_eq!(arrived(&mut state, now + SHORT), crossed, "in their order");
        state.take(2, &frame(0xFF, 2, 50), now);
        assert_eq!(arrived(&mut state, now + SHORT), [(0, 50), (1, 50)], "a frame for all");
        assert_eq!(state.counts.crossed, 22);
    }

    #[test]
    fn the_set_part_is_lost_across_and_nothing_on_a_side() {
        let now = Instant::now();
        let mut state = state(10, now);
        for _ in 0..20_000 {
            state.take(0, &frame(1, 0, 0), now);
            state.take(2, &frame(0, 2, 0), now);
        }
        assert!((100..300).contains(&state.counts.lost), "{:?}", state.counts);
        assert_eq!(state.counts.lost + state.counts.crossed, 20_000);
        assert_eq!(arrived(&mut state, now).len(), 20_000);
    }

    #[test]
    fn a_cut_swallows_one_direction_of_one_machine_alone() {
        let now = Instant::now();
        let pass = |state: &mut State| {
            for (from, to) in [(0, 1), (1, 0), (2, 0), (0, 2), (1, 2), (2, 1)] {
                state.take(from, &frame(to, from, from as u8), now);
            }
            arrived(state, now + SHORT)
        };
        let mut state = state(0, now);
        state.ports[0].cut = Some(Cut::Outward);
        assert_eq!(pass(&mut state), [(0, 1), (0, 2), (2, 1), (1, 2)]);
        state.ports[0].cut = Some(Cut::Inward);
        assert_eq!(pass(&mut state), [(1, 0), (2, 0), (2, 1), (1, 2)]);
        assert_eq!(state.counts.cut, 4);
        state.ports[0].cut = None;
        assert_eq!(pass(&mut state).len(), 6);
    }

    #[test]
    fn what_is_no_frame_or_finds_no_room_is_dropped() {
        let now = Instant::now();
        let mut state = state(0, now);
        state.take(0, &[1, 2, 3], now);
        assert_eq!(arrived(&mut state, now), []);
        for _ in 0..FRAMES_MAX + 5 {
            state.take(0, &frame(2, 0, 0), now);
        }
        assert_eq!((state.due.len(), state.counts.lost), (FRAMES_MAX, 5));
    }
}
