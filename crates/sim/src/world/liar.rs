//! An authority that lies. Its process is down; its key signs what an honest authority never signs,
//! and its place on the network sends that to chosen peers.

use super::{Failure, World, account, judging::LOOK};
use commonware_codec::{Encode as _, varint::UInt};
use commonware_consensus::{
    simplex::types::{Notarize, Proposal, Vote},
    types::{Epoch, Round, View},
};
use commonware_cryptography::{Digestible as _, Signer as _, ed25519::PrivateKey};
use commonware_glue::dkg::SecretStore as _;
use commonware_p2p::{Recipients, Sender as _, simulated::Sender};
use commonware_runtime::{Clock as _, deterministic::Context};
use posync_node::engine::{Block, PublicKey, Scheme, channels, quota};
use posync_protocol::{
    Bounded,
    block::{BlockBody, Header},
};

/// Intervals of [`LOOK`] that a message may take to arrive and spread.
const ARRIVES: u32 = 20;

impl World<'_> {
    /// Signs two blocks for the first view and shows each to half of the others.
    pub(super) async fn equivocate(&mut self, liar: u8) -> Result<(), Failure> {
        let others = self.lasting.seats.len() - 1;
        while self.handles().len() < others {
            self.context.sleep(LOOK).await;
        }
        let genesis = self.lasting.genesis.block::<Context>();
        let key = self.key_of(liar);
        let blocks = [0, 1].map(|time_ms| {
            let header = Header {
                term: 0,
                view: 1,
                parent: genesis.header().digest(),
                height: 1,
                time_ms,
                ..genesis.header().clone()
            };
            let body = BlockBody {
                draws: Bounded::default(),
                operations: Bounded::default(),
                dkg: Bounded::default(),
            };
            Block::sign(header, body, None, &key)
        });
        let scheme = self.scheme(liar).await;
        let (mut show, mut vote) =
            (self.sender(liar, channels::BROADCAST).await, self.sender(liar, channels::VOTES).await);
        let peers = (0u8..).zip(&self.lasting.seats).filter(|(index, _)| *index != liar);
        for (place, (_, peer)) in peers.enumerate() {
            let (block, to) = (&blocks[place % 2], Recipients::One(peer.key.public_key()));
            show.send(to.clone(), block.encode(), true);
            let round = Round::new(Epoch::zero(), View::new(1));
            let proposal = Proposal::new(round, View::zero(), block.digest());
            let notarize = Notarize::sign(&scheme, proposal).expect("it holds a share");
            // Votes of a term travel on their own channel within the channel.
            let message = [UInt(0u64).encode(), Vote::Notarize(notarize).encode()].concat();
            vote.send(to, message, true);
        }
        self.lasting.liars.insert(account(&key));
        self.context.sleep(LOOK * ARRIVES).await;
        Ok(())
    }

    /// Signs another version of a final block, long after it.
    pub(super) async fn sign_again(&mut self, liar: u8, to: u8) -> Result<(), Failure> {
        let (key, tip) = (self.key_of(liar), self.lasting.judge.height());
        let (_, handle) = self.handles().into_iter().next().expect("somebody runs");
        let mut height = tip;
        let (header, body) = loop {
            let (header, body) = (handle.header(height).await, handle.body(height).await);
            match header.zip(body) {
                Some((header, body)) if header.leader == account(&key) => break (header, body),
                _ => height -= 1,
            }
        };
        let header = Header { time_ms: header.time_ms + 1, ..header };
        let block = Block::sign(header, body, None, &key);
        let peer = self.lasting.seats[usize::from(to)].key.public_key();
        let mut show = self.sender(liar, channels::BROADCAST).await;
        show.send(Recipients::One(peer), block.encode(), true);
        self.lasting.liars.insert(account(&key));
        self.context.sleep(LOOK * ARRIVES).await;
        Ok(())
    }

    fn key_of(&self, authority: u8) -> PrivateKey {
        self.lasting.seats[usize::from(authority)].key.clone()
    }

    async fn sender(&self, authority: u8, channel: u64) -> Sender<PublicKey, Context> {
        let control = self.oracle.control(self.key_of(authority).public_key());
        let (sender, _) = control.register(channel, quota()).await.expect("the network outlives its nodes");
        sender
    }

    /// The scheme with which an authority signs votes of the first term.
    async fn scheme(&self, authority: u8) -> Scheme {
        let (genesis, seat) = (&self.lasting.genesis, &self.lasting.seats[usize::from(authority)]);
        let share = seat.secrets.clone().get_share(Epoch::zero()).await.expect("it was dealt one");
        let (players, sharing) = (genesis.output.players().clone(), genesis.output.public().clone());
        Scheme::signer(&genesis.namespace(), players, sharing, share).expect("its own share")
    }
}
