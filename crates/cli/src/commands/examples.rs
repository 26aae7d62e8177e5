//! Examples at the end of the long help of a command. A test in `main.rs` runs each of them through the parser.
//!
//! A line is a command and, after at least two spaces, its effect.

/// Examples of `posync demo`.
pub(crate) const DEMO: &str = "Examples:
  posync demo                        the whole tour on a network of its own: a minute, or more on a busy machine
  posync demo --file movie.mp4       the same with a file of yours
  posync --json demo                 one object with all figures on standard output";

/// Examples of `posync devnet`.
pub(crate) const DEVNET: &str = "Examples:
  posync devnet                      4 authorities, 10 providers and a gateway in ./devnet, until Ctrl-C
  posync devnet --dir /tmp/net       the same in another directory; name it to other commands with --net
  posync devnet --fresh              removes the network in the directory and begins anew
  posync devnet --providers 20       more providers to choose from";

/// Examples of `posync put`.
pub(crate) const PUT: &str = "Examples:
  posync put report.pdf              stores it as 'report.pdf'
  posync put report.pdf 2026/report  stores it under another name
  tar c photos | posync put - photos.tar  stores what another program writes";

/// Examples of `posync get`.
pub(crate) const GET: &str = "Examples:
  posync get report.pdf copy.pdf     reads the file, and checks every byte
  posync get photos.tar - | tar x    passes it on to another program";

/// Examples of `posync ls`.
pub(crate) const LS: &str = "Examples:
  posync ls                          name, size, hash and durable shards of each file
  posync --json ls                   the same for a script";

/// Examples of `posync rm`.
pub(crate) const RM: &str = "Examples:
  posync rm report.pdf               removes the file; there is no way back";

/// Examples of `posync send`.
pub(crate) const SEND: &str = "Examples:
  posync send provider-3 1.5         sends 1.5 SYNC from the network's user.key
  posync send provider-3 2 --key my.key  pays from another key";

/// Examples of `posync account`.
pub(crate) const ACCOUNT: &str = "Examples:
  posync account                     your own account and its balance
  posync account gateway             the account of a member, by its name";

/// Examples of `posync key`.
pub(crate) const KEY: &str = "Examples:
  posync key new me.key              makes a key and prints its account; back up the file
  posync key show me.key             prints the account, without a network";

/// Examples of `posync status`.
pub(crate) const STATUS: &str = "Examples:
  posync status                      is the network running, and is all money accounted for?
  posync --net /tmp/net status       the same for the network in another directory";

/// Examples of `posync providers`.
pub(crate) const PROVIDERS: &str = "Examples:
  posync providers                   what each provider stores, how it was audited, what it earned
  posync why provider-3              goes into the details of one of them";

/// Examples of `posync why`.
pub(crate) const WHY: &str = "Examples:
  posync why provider-3              by a member's name, an account (sync1...) or an operator";

/// Examples of `posync prove`.
pub(crate) const PROVE: &str = "Examples:
  posync prove account gateway       writes proof.sync: the balance, proved under the network key
  posync prove payout provider-3 7 --out pay.sync  what a provider was paid for epoch 7
  posync verify pay.sync --network-key 8c5f...  checks it, on any machine, without a network";

/// Examples of `posync verify`.
pub(crate) const VERIFY: &str = "Examples:
  posync verify proof.sync --network-key 8c5f...  the key is that of `posync net show`";

/// Examples of `posync blocks`.
pub(crate) const BLOCKS: &str = "Examples:
  posync blocks                      one line for each of the last 20 blocks
  posync blocks --from 1 --to 9      one line for each block of a range
  posync --json blocks > all.jsonl   everything in every block, for scripts";

/// Examples of `posync explain`.
pub(crate) const EXPLAIN: &str = "Examples:
  posync explain reward provider-3 7  every fee, report and formula behind its pay for epoch 7";

/// Examples of `posync run`.
pub(crate) const RUN: &str = "Examples:
  posync run --local hello.wasm      runs it; its output and its exit code are this command's
  posync run --local resvg.wasm --file in.svg=a.svg --out made -- /in.svg /out/a.png  a file in, a file out
  posync run --local python.wasm --gas 5000000000 -- -c 'print(1)'  ends after so much work, whatever it does";
