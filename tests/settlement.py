#!/usr/bin/env python3
"""Recomputes every settled fee from exported blocks and nothing else.

usage: settlement.py BLOCKS.jsonl        (from `posync blocks --json`, from the first block on)

It shares no code with the ledger: it reads the operations, the draws and the outcome of audits, and
works out from docs/protocol.md what each provider and each voucher must have been paid. Rules that it
checks: VO-1 to VO-4 (downloads), ST-1, ST-2, ST-5 (storage), ST-3 (the split, to the grain), MK-1 (an
agreement keeps the prices that were posted at its opening), AG-8 (a top-up buys at today's price).
Exit 0 when every figure agrees, 1 with one line per disagreement.
"""

import json
import sys
from collections import defaultdict

ONE = 10**9
UNIT = 2**20


def grains(amount):
    """An amount of money, which is {"grains": "1500000000", "sync": "1.500000000"} in JSON."""
    return int(amount["grains"])


class Slot:
    """An agreement's terms and what it holds."""

    def __init__(self, opened, fields, posted):
        self.opened = opened
        self.end_epoch = fields["end_epoch"]
        self.price = posted[0][0]
        self.flows = [Flow(*pair) for pair in posted[1:]]  # egress, gas
        self.leaves = 0  # in force
        self.next = None  # waits for a settled point
        self.redeemed = (0, 0)  # egress bytes, gas
        self.reserve = grains(fields["voucher_reserve"])

    def weight(self):
        return self.price * self.leaves

    def top_up(self, amount, posted):
        """AG-8: a higher posted price holds for what the reserve had not paid for before."""
        for flow, used, pair in zip(self.flows, self.redeemed, posted[1:]):
            flow.top_up(used, self.reserve, *pair)
        self.reserve += amount

    def rise(self, units):
        """What cumulative units cost beyond the redeemed ones, and the provider's base of it."""
        fee = sum(flow.value(unit) - flow.value(old) for flow, unit, old in zip(self.flows, units, self.redeemed))
        base = sum(flow.base(unit) - flow.base(old) for flow, unit, old in zip(self.flows, units, self.redeemed))
        return fee, base

    def affordable(self, new):
        """VO-3: each class advances in proportion, from rise to rise of a price."""
        more = [unit - old for unit, old in zip(new, self.redeemed)]
        price = lambda part: self.rise([old + unit for old, unit in zip(self.redeemed, part)])[0]
        paid, upto = (0, 0), tuple(more)
        for place in (0, 1):
            to = self.flows[place].first - self.redeemed[place]
            if not 0 < to < more[place]:
                continue
            bend = tuple(to if each == place else more[each] * to // more[place] for each in (0, 1))
            if price(bend) <= self.reserve:
                paid = bend if price(bend) > price(paid) else paid
            elif price(bend) < price(upto):
                upto = bend
        left, full = self.reserve - price(paid), price(upto) - price(paid)
        part = [old + (end - old) * left // full for old, end in zip(paid, upto)]
        return tuple(old + unit for old, unit in zip(self.redeemed, part))


class Flow:
    """The prices of one class: `before` up to `first` cumulative units, `price` beyond; `slow` beside it."""

    def __init__(self, price, slow):
        self.price, self.slow = price, slow
        self.first, self.before, self.base_before = 0, price, min(price, slow)

    def value(self, units):
        return at(self.first, self.before, self.price, units)

    def base(self, units):
        return at(self.first, self.base_before, min(self.price, self.slow), units)

    def top_up(self, used, left, price, slow):
        if price <= self.price:
            return
        to = max(used, self.reach(self.value(used) + left)) if self.price else used
        before = self.mean(used, to, self.before, self.price, self.value)
        base = self.mean(used, to, self.base_before, min(self.price, self.slow), self.base)
        slow = max(slow, min(self.price, self.slow))
        self.first, self.before, self.base_before = to, before, min(base, before)
        self.price, self.slow = price, slow

    def reach(self, grains):
        below = self.value(self.first)
        if grains < below:
            return grains * UNIT // self.before
        return self.first + (grains - below) * UNIT // self.price

    def mean(self, used, to, before, beyond, value):
        if to <= self.first:
            return before
        if used >= self.first:
            return beyond
        return min(max(-(-(value(to) - value(used)) * UNIT // (to - used)), before), beyond)


def at(first, before, beyond, units):
    """The price of cumulative units: one price up to `first`, another beyond, each part floored."""
    return before * min(units, first) // UNIT + beyond * max(0, units - first) // UNIT


class Provider:
    """What the ledger must know of a provider."""

    def __init__(self):
        self.slots = {}
        self.settled_round = 0
        self.challenge = None  # round of the draw

    def slot_weight(self):
        return sum(slot.weight() for slot in self.slots.values())


class Books:
    def __init__(self, network):
        self.parameters = network["parameters"]
        genesis = [int(self.parameters[name]) for name in ("price_storage", "price_egress", "price_gas")]
        self.posted = [(price, price) for price in genesis]  # by class: price, slow price
        self.providers = defaultdict(Provider)
        self.errors = []
        self.checked = {"storage": 0, "download": 0}
        self.fees = 0

    def error(self, height, text):
        self.errors.append(f"block {height}: {text}")

    def split(self, height, row, base):
        """ST-3: what was paid above the base is burned."""
        fee, burn = grains(row["fee"]), grains(row["burn"])
        committee, pay = grains(row["committee"]), grains(row["provider_pay"])
        want_burn = -(-base * self.parameters["burn"] // ONE) + fee - base
        want_committee = base * self.parameters["committee"] // ONE
        if burn + committee + pay != fee:
            self.error(height, f"{burn} + {committee} + {pay} is not the fee {fee}")
        if (burn, committee) != (want_burn, want_committee):
            self.error(height, f"fee {fee} splits into burn {want_burn}, committee {want_committee}: told {burn}, {committee}")
        self.fees += fee

    def storage_fee(self, provider, through, passed):
        """ST-2, ST-5: what is in force, round by round, each agreement up to its end."""
        units = 0
        for slot in provider.slots.values():
            end = slot.end_epoch * self.parameters["epoch_rounds"]
            units += slot.weight() * max(0, min(through, end) - provider.settled_round)
        return units * passed // (4 * UNIT)

    def audited(self, block, event):
        """Closes a challenge; returns the storage fee that must be told."""
        provider = self.providers[event["provider"]]
        fee = 0
        if event["answered"]:
            drawn = event["height"] // self.parameters["round_blocks"]
            through = block["round"] if event["on_time"] else drawn
            fee = self.storage_fee(provider, through, event["passed"])
        provider.challenge = None
        provider.settled_round = max(provider.settled_round, block["round"])
        return fee

    def voucher(self, slot, voucher):
        """VO-1, VO-3: the difference of cumulative prices; units count as far as the reserve pays them."""
        new = (voucher["egress"], int(voucher["gas"]))
        full, base = slot.rise(new)
        if full <= slot.reserve:
            return new, full, min(base, full)
        paid = slot.affordable(new)
        fee, base = slot.rise(paid)
        fee = min(fee, slot.reserve)
        return paid, fee, min(base, fee)

    def block(self, block):
        height = block["height"]
        events = block["events"]
        storage = [e for e in events if e["event"] == "Settled" and e["agreement"] is None]
        downloads = [e for e in events if e["event"] == "Settled" and e["agreement"] is not None]
        refused = [e["agreement"] for e in events if e["event"] == "VoucherRefused"]
        for event in events:
            if event["event"] == "Priced":
                self.posted[event["class"]] = (int(event["price"]), int(event["slow"]))
        for row in storage:
            self.split(height, row, grains(row["fee"]))
        for row in storage + downloads:
            if row["epoch"] != block["epoch"]:
                self.error(height, f"a fee of epoch {block['epoch']} was booked in {row['epoch']}")
        for event in events:
            if event["event"] == "Drawn":
                self.providers[event["provider"]].challenge = block["round"]
            elif event["event"] == "Audited" and not event["answered"]:
                # Expired: closed by the next draw or by Settle, and pays nothing.
                self.audited(block, event)
        deleted = {(e["agreement"]["provider"], e["agreement"]["slot"])
                   for e in events if e["event"] == "Agreement" and e["change"] == "deleted"}
        codes = {receipt["id"]: receipt["code"] for receipt in block["receipts"]}
        for operation in block["operations"]:
            if codes[operation["id"]] == 0:
                self.operation(block, operation, storage, downloads, refused, deleted)
        for row in storage:
            self.error(height, f"storage fee {grains(row['fee'])} of {row['provider']} has no storage proof")
        for row in downloads:
            self.error(height, f"download fee {grains(row['fee'])} of {row['provider']} has no voucher")

    def operation(self, block, operation, storage, downloads, refused, deleted):
        kind, fields, signer = operation["kind"], operation["fields"], operation["signer"]
        if kind == "Open":
            provider = self.providers[fields["provider"]]
            if provider.slot_weight() == 0:
                provider.settled_round = block["round"]
            provider.slots[fields["slot"]] = Slot(block["height"], fields, list(self.posted))
        elif kind == "TopUp":
            id = fields["agreement"]
            self.providers[id["provider"]].slots[id["slot"]].top_up(grains(fields["amount"]), self.posted)
        elif kind == "SetDataSet":
            self.set_data_set(block, fields["claim"])
        elif kind == "StorageProof":
            self.storage_proof(block, signer, fields, storage)
            self.redeem(block, signer, fields["vouchers"], downloads, refused)
        elif kind == "Redeem":
            self.redeem(block, signer, fields["vouchers"], downloads, refused)
        elif kind == "Settle":
            self.settle(block, fields, deleted)
        elif kind == "Close":
            id = fields["agreement"]
            if (id["provider"], id["slot"]) in deleted:
                del self.providers[id["provider"]].slots[id["slot"]]

    def set_data_set(self, block, claim):
        """DS-4: in force at once only at a settled point, else it waits."""
        id = claim["agreement"]
        provider = self.providers[id["provider"]]
        slot = provider.slots[id["slot"]]
        if provider.challenge is None and provider.slot_weight() == 0:
            provider.settled_round = block["round"]
        if provider.challenge is None and provider.settled_round == block["round"]:
            slot.leaves, slot.next = claim["leaves"], None
        else:
            slot.next = claim["leaves"]

    def storage_proof(self, block, signer, fields, storage):
        height = block["height"]
        events = [e for e in block["events"]
                  if e["event"] == "Audited" and e["answered"] and e["provider"] == signer]
        if len(events) != 1:
            self.error(height, f"a storage proof of {signer} has {len(events)} audits")
            return
        fee = self.audited(block, events[0])
        told = [row for row in storage if row["provider"] == signer]
        for row in told:
            storage.remove(row)
        if [grains(row["fee"]) for row in told] != ([fee] if fee else []):
            self.error(height, f"storage of {signer}: the rule says {fee}, told {[grains(row['fee']) for row in told]}")
        self.checked["storage"] += len(told)
        self.put_in_force(signer, fields["apply"])

    def put_in_force(self, account, slots):
        for number in slots:
            slot = self.providers[account].slots[number]
            if slot.next is not None:
                slot.leaves, slot.next = slot.next, None

    def redeem(self, block, signer, vouchers, downloads, refused):
        """VO-4: each judged apart, the best of an agreement first."""
        best = {}
        for voucher in vouchers:
            id = voucher["agreement"]
            units = (voucher["egress"], int(voucher["gas"]))
            number = id["slot"]
            if number not in best or units > best[number][0]:
                best[number] = (units, id, voucher)
        for number, (_, id, voucher) in best.items():
            slot = self.providers[signer].slots.get(number)
            # One for each redemption; a later one of this block may have told another.
            told = [row for row in downloads if row["agreement"] == id][:1]
            new, fee, base = self.voucher(slot, voucher) if slot else ((0, 0), 0, 0)
            if not told and (fee == 0 or id in refused):
                if slot and id not in refused and new > slot.redeemed:
                    slot.redeemed = new
                continue
            for row in told:
                downloads.remove(row)
            if [grains(row["fee"]) for row in told] != [fee]:
                self.error(block["height"],
                           f"voucher of {signer} slot {number}: the rule says {fee}, told {[grains(row['fee']) for row in told]}")
            for row in told:
                self.split(block["height"], row, base)
            slot.redeemed = new
            slot.reserve -= fee
            self.checked["download"] += 1

    def settle(self, block, fields, deleted):
        provider = self.providers[fields["provider"]]
        for number in fields["slots"]:
            slot = provider.slots[number]
            if (fields["provider"], number) in deleted:
                del provider.slots[number]
            elif block["epoch"] >= slot.end_epoch:
                slot.leaves, slot.next = 0, None
            else:
                self.put_in_force(fields["provider"], [number])


def main(path):
    with open(path, encoding="utf-8") as file:
        network = json.loads(file.readline())
        books = Books(network)
        expected = 1
        for line in file:
            block = json.loads(line)
            if block["height"] != expected:
                sys.exit(f"block {expected} is missing: export from the first block on")
            books.block(block)
            expected += 1
    for error in books.errors:
        print(error)
    checked = books.checked
    print(f"{expected - 1} blocks, {checked['storage']} storage fees and {checked['download']} download fees "
          f"recomputed, {books.fees} grains in all, {len(books.errors)} disagreements")
    if not (checked["storage"] and checked["download"]):
        print("nothing to recompute of one kind: let the network run until both were settled")
        return 1
    return 1 if books.errors else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
