//! The encoding of events, in which a node keeps them and a client reads them.
//!
//! Events are not part of the state: these bytes are never hashed. A tag is never reused.

use crate::ledger::{AgreementChange, Event, ReputationReason, ReputationStep};
use bytes::BufMut;
use commonware_codec::{Buf, EncodeSize, Error, FixedSize, Read, ReadExt as _, Write};

/// Encodes an enum without fields as one byte. The tags must equal the variants' order of declaration.
macro_rules! tag_codec {
    ($name:ident { $($tag:literal $variant:ident)* }) => {
        impl Write for $name {
            fn write(&self, buf: &mut impl BufMut) {
                (*self as u8).write(buf);
            }
        }
        impl FixedSize for $name {
            const SIZE: usize = 1;
        }
        impl Read for $name {
            type Cfg = ();
            fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
                match u8::read(buf)? {
                    $($tag => Ok(Self::$variant),)*
                    tag => Err(Error::InvalidEnum(tag)),
                }
            }
        }
    };
}

tag_codec! { AgreementChange { 0 Opened 1 Closing 2 Deleted } }
tag_codec! { ReputationStep { 0 Warned 1 Suspended 2 Resumed 3 Jailed 4 Unjailed } }
tag_codec! { ReputationReason { 0 Correctness 1 Availability 2 Request 3 Equivocation } }

/// Encodes an event as its tag and its fields in order, and decodes it likewise.
macro_rules! event_codec {
    ($($tag:literal $variant:ident { $($field:ident),* })*) => {
        impl Write for Event {
            fn write(&self, buf: &mut impl BufMut) {
                match self { $(Self::$variant { $($field),* } => { u8::write(&$tag, buf); $($field.write(buf);)* })* }
            }
        }
        impl EncodeSize for Event {
            fn encode_size(&self) -> usize {
                1 + match self { $(Self::$variant { $($field),* } => 0 $(+ $field.encode_size())*,)* }
            }
        }
        impl Read for Event {
            type Cfg = ();
            fn read_cfg(buf: &mut impl Buf, _: &()) -> Result<Self, Error> {
                match u8::read(buf)? {
                    $($tag => Ok(Self::$variant { $($field: Read::read_cfg(buf, &Default::default())?),* }),)*
                    tag => Err(Error::InvalidEnum(tag)),
                }
            }
        }
    };
}

event_codec! {
    0 Settled { epoch, provider, agreement, fee, burn, committee, pay }
    1 Drawn { provider, height }
    2 Audited { provider, height, answered, passed, reads, on_time, excused }
    3 Agreement { agreement, consumer, change }
    4 VoucherRefused { agreement, code }
    5 Restitution { provider, agreement, amount }
    32 CapacityCut { provider, consumer, before, after }
    6 Pool { epoch, weight, emission, pool, drawn }
    7 Priced { epoch, class, price, slow }
    8 Subsidy { epoch, provider, amount }
    9 Reputation { provider, epoch, step, reason, evidence, until }
    10 Closed { epoch, rows, root }
    11 Slashed { seat, epoch, parts, amount, burned, reporter, evidence, until }
    12 CommitteePaid { epoch, seat, credits, amount }
    13 ServiceMeasured { epoch, provider, assigned, reported, on_time, answered, correct, latency, throughput, stands }
    15 RoundFaulty { round, drawn, on_time }
    14 CapacityMeasured { epoch, provider, rate, median }
    16 Reported { epoch, provider, auditor, asked, answered, correct, latency, throughput, code }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Account, AgreementId, Amount, Code};
    use commonware_codec::{DecodeExt as _, Encode as _};

    /// One event of each kind that service audits emit.
    fn of_service(provider: Account) -> [Event; 2] {
        [
            Event::ServiceMeasured {
                epoch: 1,
                provider,
                assigned: 4,
                reported: 3,
                on_time: 5,
                answered: 6,
                correct: 7,
                latency: 8,
                throughput: u64::MAX,
                stands: [6, 8],
            },
            Event::Reported {
                epoch: 1,
                provider,
                auditor: provider,
                asked: 4,
                answered: 3,
                correct: 2,
                latency: 1,
                throughput: 5,
                code: Code::AuditUnbacked,
            },
        ]
    }

    #[test]
    fn events_survive_their_bytes() {
        let (provider, amount) = (Account([7; 32]), Amount::sync(3));
        let agreement = AgreementId { provider, slot: 4, opened: 5 };
        let events = [
            Event::Settled {
                epoch: 1,
                provider,
                agreement: Some(agreement),
                fee: amount,
                burn: amount,
                committee: amount,
                pay: amount,
            },
            Event::Drawn { provider, height: 9 },
            Event::Audited {
                provider,
                height: 9,
                answered: true,
                passed: 3,
                reads: 4,
                on_time: false,
                excused: true,
            },
            Event::Agreement { agreement, consumer: provider, change: AgreementChange::Deleted },
            Event::VoucherRefused { agreement, code: Code::Balance },
            Event::Restitution { provider, agreement, amount },
            Event::CapacityCut { provider, consumer: provider, before: 7, after: 6 },
            Event::Pool { epoch: 1, weight: 2, emission: amount, pool: amount, drawn: amount },
            Event::Priced { epoch: 1, class: 2, price: 3, slow: 4 },
            Event::Subsidy { epoch: 1, provider, amount },
            Event::Reputation {
                provider,
                epoch: 1,
                step: ReputationStep::Unjailed,
                reason: ReputationReason::Request,
                evidence: [2; 32],
                until: 3,
            },
            Event::Closed { epoch: 1, rows: 2, root: [3; 32] },
            Event::Slashed {
                seat: provider,
                epoch: 1,
                parts: 2,
                amount,
                burned: amount,
                reporter: Some(provider),
                evidence: [2; 32],
                until: u64::MAX,
            },
            Event::CommitteePaid { epoch: 1, seat: provider, credits: 7, amount },
            Event::RoundFaulty { round: 5, drawn: 16, on_time: 12 },
            Event::CapacityMeasured { epoch: 1, provider, rate: 2, median: Some(3) },
            Event::CapacityMeasured { epoch: 1, provider, rate: 2, median: None },
        ];
        for event in events.into_iter().chain(of_service(provider)) {
            assert_eq!(Event::decode(event.encode()).ok(), Some(event));
        }
    }
}
