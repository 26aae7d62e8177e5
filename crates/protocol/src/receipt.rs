//! Receipt codes: the outcome of an operation. Numbers are never reused. If several codes apply, the
//! lowest is given. Every refusal says what the sender can do next.

macro_rules! codes {
    ($($number:literal $name:ident $text:literal;)*) => {
        /// The outcome of an operation, in order of precedence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Code { $(#[doc = $text] $name = $number,)* }

        impl Code {
            /// All codes, lowest first.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The outcome in words, and the next step for the sender.
            pub const fn explain(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The code's number, in the order of precedence.
            pub const fn number(self) -> u8 {
                match self { $(Self::$name => $number,)* }
            }

            /// The code with this number, if any.
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    0 Done "done";
    1 Malformed "the bytes do not decode; build the operation with this version's client";
    2 TooLarge "the operation is larger than 32 KiB; split it";
    3 Expired "its expiry height has passed, or lies too far ahead; sign it again";
    4 WrongChain "it names another network; check the genesis";
    5 BadShape "a field is outside its range; see the limits";
    10 BadSignature "a signature does not verify; sign with the key that the record names";
    20 NonceOld "the nonce was used already; ask for the account's next nonce";
    21 NonceGap "an earlier nonce is missing; send that operation first";
    22 FeeAboveMaximum "the fee exceeds max_fee; raise max_fee";
    23 Balance "the balance does not cover the amount and the fee; fund the account";
    24 UnknownAccount "the account does not exist; send it something first";
    30 ProviderExists "this account is a provider already; use an update";
    31 ProviderUnknown "no such provider; look it up in `posync providers`";
    32 BondTooSmall "the bond is below the minimum for the declared capacity; add to it";
    33 ProviderLeaving "the provider has announced its exit; choose another";
    34 OperatorEmpty "an operator name is 1 to 32 bytes of UTF-8; give one";
    35 ProviderFull "the ledger has no free provider index; wait until one leaves";
    36 HasAgreements "the provider still has agreements; wait until they end";
    37 CapacityBelowSold "declared capacity may not go below what is sold";
    38 ExitEarly "the notice has too long to run to end agreements, the bond is still locked, or an epoch in which the provider was paid is not closed; ask again later";
    39 NoticeMissing "a provider ends an agreement alone, or leaves, only after it announced its exit; announce it";
    40 AgreementUnknown "no such agreement; its records may be gone after the redemption window";
    41 WrongParty "the signer is no party to this agreement";
    42 AgreementClosed "the agreement is closed; open a new one";
    43 AgreementEnded "the agreement has ended; open a new one";
    44 WindowOver "the redemption window is over; redeem earlier";
    45 PriceAboveMaximum "the posted price is above the consumer's maximum; raise it or wait";
    46 PriceBelowReserve "the posted price is below the provider's reserve price; choose another";
    47 NoCapacity "the quotas exceed the provider's free capacity; ask for less or choose another";
    48 SlotTaken "the slot is in use; take the provider's next free slot";
    49 TermTooLong "the end lies outside the permitted epochs; choose a nearer one";
    50 VoucherWentBack "a cumulative unit is below what was redeemed; send the latest voucher";
    51 VoucherNothingNew "nothing new to redeem";
    52 VoucherOverQuota "units exceed the agreement's quota; open a larger one";
    53 VoucherOverRate "units exceed the rate cap for the rounds so far; redeem later";
    54 VoucherReserveEmpty "the voucher reserve is empty; the consumer must top it up";
    55 EscrowTooSmall "the escrow does not cover the storage reserve; raise it";
    56 KeyRotated "the session key was rotated within the redemption window; wait until it is over";
    60 DataSetVersion "the version is not above the last one; sign the whole set under a higher version";
    61 DataSetSignature "a data set needs both signatures, an empty one only the consumer's; ask the provider to sign";
    62 DataSetOverQuota "more leaves than the agreement's quota";
    63 DataSetShrinkEarly "a shrink needs two settlements after the last growth; wait";
    64 DataSetEmptyRoot "an empty data set has the empty root, any other has leaves";
    70 NotDrawn "this provider has no open challenge at that height";
    71 AnsweredAlready "the challenge was answered or has expired; wait for the next";
    72 WrongAnchor "the anchor is not the block that was final when the challenge was drawn; sync first";
    73 ReadOutsideSlot "the read's slot does not hold the drawn index";
    74 ReadPath "the read's path does not lead to the signed root";
    75 ReadLeaf "the chunk does not lead to the shard's hash";
    76 ReaskedWrong "the answer is not for the read that was asked again";
    77 EndingsMissing "the endings named are not those to be crossed; read the provider's record of endings again";
    80 SettledAlready "settled already; nothing to do";
    81 NothingToSettle "the slot has nothing to settle or expire";
    82 TooManyKeys "the block names too many records; the operation waits for the next one";
    84 RefusalStale "the refusal is older than an epoch or of a height to come; bring one that is recent";
    85 RefusalBeyond "what was refused exceeds the provider's free declared capacity; refusing it is its right";
    86 RefusalCut "the provider declares no more than what is under contract; there is nothing to cut";
    90 ProviderJailed "the provider is in jail and takes no new agreements; choose another";
    91 ProviderSuspended "the provider was away for three epochs and takes no new agreements; choose another";
    92 NotJailed "the provider is not in jail; nothing to do";
    93 JailedStill "the time in jail is not over; ask again in the epoch that its reputation names";
    94 NotEvidence "the two signatures do not contradict each other; bring two that one seat gave for one place";
    95 EvidenceStale "the fault is older than 14 epochs, or of an epoch to come; bring it while it counts";
    96 SeatUnknown "who signed has no seat; nothing is locked that could be taken";
    97 EvidenceKnown "this seat's fault of that epoch is proven already; nothing to do";
    98 AuditNotSeat "the signer has no seat, or lost it; only authorities audit service";
    99 AuditTime "an audit is committed in its own epoch and revealed in the first round of the next; wait for the next epoch";
    100 AuditUndrawn "no service audit was drawn in that epoch, or not yet; wait for the epoch's first seed";
    101 AuditCommitted "a commitment of this seat and epoch stands; reveal what it names";
    102 AuditUncommitted "this seat committed to nothing in that epoch; commit before the epoch ends";
    103 AuditAltered "this is not what was committed to; reveal exactly the reports, salt and batches of the commitment";
    104 AuditNotAssigned "the epoch's seed does not draw this seat to audit this provider, or the provider is not there";
    105 AuditReported "this auditor's report on the provider counts already";
    106 AuditAgreement "the agreement is not there, or not opened under the key that signed the report";
    107 AuditUnbacked "what the provider redeemed under the agreement does not cover the reads; reveal again once it has";
    108 MeasureUndrawn "the epoch drew no peers to count: no seed in its first round, or fewer than two providers; wait for the next";
    109 MeasureUntimely "an epoch is measured after its slot and before the end of the next epoch; wait for it, or for the next";
    110 MeasuredAlready "this epoch or a later one is measured already; wait for the next";
    111 MeasurePeer "a count is by or for an account that the epoch did not draw, or that registered in it; ask those that were drawn";
    112 NoEgress "the egress quota, spread over the agreement's epochs, exceeds what the provider may sell; ask for less or choose another";
    116 GrowthJailed "the provider is in jail and takes no new data; shrink its data sets, or store elsewhere";
    117 GrowthSuspended "the provider was away for three epochs and takes no new data; store elsewhere, or wait until it is back";
    118 ChallengeOpen "reads of the provider are due, and a close by both would hide them; close again once it has answered";
    119 NoGas "the gas quota, spread over the agreement's epochs, exceeds what the provider declared; ask for less or choose another";
}

impl commonware_codec::Write for Code {
    fn write(&self, buf: &mut impl bytes::BufMut) {
        buf.put_u8(self.number());
    }
}

impl commonware_codec::FixedSize for Code {
    const SIZE: usize = 1;
}

impl commonware_codec::Read for Code {
    type Cfg = ();
    fn read_cfg(buf: &mut impl commonware_codec::Buf, _: &()) -> Result<Self, commonware_codec::Error> {
        let number = u8::read_cfg(buf, &())?;
        Self::from_number(number).ok_or(commonware_codec::Error::InvalidEnum(number))
    }
}
