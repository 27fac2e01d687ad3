"""The fill conventions once more, in plain Python: dicts and lists, bar by bar, nothing shared with the kernel.

It is slow and long-winded on purpose: each rule stands on its own lines, to be read beside the convention it restates.
"""

import math
import statistics

HOUR = 3_600_000


def fill_holes(coin: list[dict]) -> list[dict]:
    "Missing bars flat at the last real close; bars are dicts of time, open, high, low, close, filled."
    out: list[dict] = []
    price = None
    for bar in coin:
        while out and out[-1]["time"] + HOUR < bar["time"]:
            flat = dict.fromkeys(("open", "high", "low", "close"), price)
            out.append({"time": out[-1]["time"] + HOUR, "filled": True, **flat})
        if bar["filled"] and price is not None:
            bar = {**bar, **dict.fromkeys(("open", "high", "low", "close"), price)}
        if not bar["filled"]:
            price = bar["close"]
        out.append(bar)
    return out


class Coin:
    def __init__(self, symbol: str, bars: list[dict], events: list[tuple[int, float]], config: dict):
        self.symbol, self.config, self.events = symbol, config, events
        self.bars = fill_holes(bars)
        self.at = {b["time"]: i for i, b in enumerate(self.bars)}
        self.last_real = max(b["time"] for b in self.bars if not b["filled"])
        self.trade: dict | None = None  # the open position
        self.leaving: str | None = None  # reason of a waiting exit
        self.entering: dict | None = None  # a waiting entry
        self.exit_time: int | None = None
        self.trades: list[dict] = []

    def sigma(self, time: int) -> float | None:
        i = self.at[time]
        if i < 24:
            return None
        closes = [b["close"] for b in self.bars[i - 24 : i + 1]]
        returns = [b / a - 1 for a, b in zip(closes, closes[1:])]
        return statistics.stdev(returns)

    def fee(self, quantity: float, price: float) -> float:
        contracts = quantity / self.config["contract_units"]
        return max(quantity * price * self.config["fee_bps"] / 1e4, contracts * self.config["min_fee_usd_per_contract"])

    def pay(self, bar: dict, rate: float) -> None:
        if self.trade:
            self.trade["funding"] += -self.trade["side"] * self.trade["quantity"] * bar["open"] * rate

    def enter(self, bar: dict) -> None:
        order, self.entering = self.entering, None
        slip = self.config["slippage_bps"] / 1e4
        price = bar["open"] * (1 + order["side"] * slip)
        size = self.config["size"]
        quantity = size["notional_usd"] / price if "notional_usd" in size else order["quantity"]
        self.trade = {**order, "quantity": quantity, "entry_time": bar["time"], "entry_ref": bar["open"], "entry_price": price,
                      "funding": 0.0, "fee_in": self.fee(quantity, price), "stop": None, "target": None}
        for level, multiple, sign in (("stop", self.config["vol_mult_sl"], -1), ("target", self.config["vol_mult_tp"], 1)):
            if multiple is not None:
                self.trade[level] = price * (1 + sign * order["side"] * multiple * order["sigma"])
        self.trade["closes"] = []
        self.trade["liquidation"] = None
        if self.config["maintenance_margin"] is not None:
            # what is left of the margin, side × (P − E) + E / leverage per coin, equals the maintenance, rate × P
            leverage = self.config["leverage"] or size.get("leverage", 4.0)
            self.trade["liquidation"] = (price - order["side"] * price / leverage) / (1 - order["side"] * self.config["maintenance_margin"])

    def leave(self, bar: dict, ref: float, reason: str, both: bool = False) -> None:
        t, self.trade, self.leaving, self.exit_time = self.trade, None, None, bar["time"]
        side, q = t["side"], t["quantity"]
        price = ref * (1 - side * self.config["slippage_bps"] / 1e4)
        gross = side * q * (ref - t["entry_ref"])
        slippage = -q * (abs(t["entry_price"] - t["entry_ref"]) + abs(price - ref))
        fees = -(t["fee_in"] + self.fee(q, price))
        self.trades.append({
            "symbol": self.symbol, "side": side, "decision_time": t["decision_time"], "entry_time": t["entry_time"],
            "entry_ref": t["entry_ref"], "entry_price": t["entry_price"], "exit_time": bar["time"], "exit_ref": ref,
            "exit_price": price, "quantity": q, "exit_reason": reason, "both_touched": both, "sigma": t["sigma"], "gross": gross,
            "slippage": slippage, "fees": fees, "funding": t["funding"], "net": gross + slippage + fees + t["funding"]})

    def bars_since(self, time: int, now: int) -> int:
        return (now - time) // HOUR

    def through(self, bar: dict) -> None:
        "Everything of one bar but the decision."
        now, tomorrow = bar["time"], bar["time"] + HOUR
        for stamp, rate in self.events:
            if stamp == now:
                self.pay(bar, rate)
        if not bar["filled"]:
            if self.leaving:
                self.leave(bar, bar["open"], self.leaving)
            if self.entering:
                self.enter(bar)
        for stamp, rate in self.events:
            if now < stamp < tomorrow:
                self.pay(bar, rate)
        if not self.trade:
            return
        limit = self.config["max_hold_bars"]
        due = limit is not None and self.bars_since(self.trade["entry_time"], now) + 1 >= limit
        if bar["filled"]:
            if due and not self.leaving:
                self.leaving = "time"
            return
        side, target = self.trade["side"], self.trade["target"]
        against = [(name, self.trade[level]) for name, level in (("stop_loss", "stop"), ("liquidation", "liquidation")) if self.trade[level] is not None]
        # the way against the position meets the nearer level first: the higher one of a long, the lower one of a short
        name, stop = max(against, key=lambda x: side * x[1]) if against else ("", None)
        worst, best = (bar["low"], bar["high"]) if side == 1 else (bar["high"], bar["low"])
        hit_stop = stop is not None and side * (worst - stop) <= 0
        hit_target = target is not None and side * (best - target) >= 0
        if stop is not None and side * (bar["open"] - stop) < 0:
            self.leave(bar, bar["open"], "stop_loss_gap" if name == "stop_loss" else "liquidation")
        elif target is not None and side * (bar["open"] - target) > 0:
            self.leave(bar, bar["open"], "take_profit_gap")
        elif hit_stop and hit_target and self.config["ambiguity"] == "best":
            self.leave(bar, target, "take_profit", True)
        elif hit_stop:
            self.leave(bar, stop, name, hit_target)
        elif hit_target:
            self.leave(bar, target, "take_profit")
        elif due:
            self.leave(bar, bar["close"], "time")
        elif now == self.last_real:
            self.leave(bar, bar["close"], "end_of_data")
        else:
            self.move_stop(bar["close"])

    def move_stop(self, close: float) -> None:
        "Where the stop stands from the next bar on."
        t = self.trade
        t["closes"].append(close)
        side, sigma, levels = t["side"], t["sigma"], [] if t["stop"] is None else [t["stop"]]
        if self.config["breakeven_sigma"] is not None:
            if any(side * (c - t["entry_price"] * (1 + side * self.config["breakeven_sigma"] * sigma)) >= 0 for c in t["closes"]):
                levels.append(t["entry_price"])
        if self.config["trail_sigma"] is not None:
            best = max(t["closes"]) if side == 1 else min(t["closes"])
            levels.append(best * (1 - side * self.config["trail_sigma"] * sigma))
        if levels:
            t["stop"] = max(levels) if side == 1 else min(levels)

    def worth(self, close: float) -> float:
        total = sum(t["net"] for t in self.trades)
        if self.trade:
            t = self.trade
            total += t["side"] * t["quantity"] * (close - t["entry_price"]) - t["fee_in"] + t["funding"]
        return total


def run(bars: dict, events: dict, decisions: list[dict], configs: dict) -> tuple[list[dict], dict, dict]:
    "Trades by entry time and symbol, rejected decisions by reason, equity by time."
    coins = {s: Coin(s, bars[s], events.get(s, []), configs[s]) for s in sorted(bars)}
    account = configs[min(bars)]
    rejected: dict[str, int] = {}
    equity: dict[int, float] = {}
    times = sorted({t for c in coins.values() for t in c.at})
    base: dict[str, float] = dict.fromkeys(coins, account["initial_equity_usd"])
    last_close = dict.fromkeys(coins, 0.0)
    for now in times:
        for coin in coins.values():
            if now in coin.at:
                bar = coin.bars[coin.at[now]]
                coin.through(bar)
                last_close[coin.symbol] = bar["close"]
        equity[now] = account["initial_equity_usd"] + sum(c.worth(last_close[s]) for s, c in coins.items())
        for s, c in coins.items():  # the equity that sizes: all of it, or no more than a week's growth allows
            growth = c.config["size"].get("max_weekly_growth")
            base[s] = equity[now] if growth is None else min(equity[now], base[s] * (1 + growth) ** (HOUR / (7 * 24 * HOUR)))
        due = [d for d in decisions if d["time"] == now]
        for d in sorted(due, key=lambda d: (math.inf if d.get("rank") is None else d["rank"], d["symbol"])):
            reason = decide(coins, coins[d["symbol"]], d, account, base[d["symbol"]])
            if reason:
                rejected[reason] = rejected.get(reason, 0) + 1
    trades = sorted((t for c in coins.values() for t in c.trades), key=lambda t: (t["entry_time"], t["symbol"]))
    return trades, rejected, equity


def decide(coins: dict, coin: Coin, d: dict, account: dict, equity: float) -> str | None:
    "Take the decision or say why not."
    config, now = coin.config, d["time"]
    bar = coin.bars[coin.at[now]]
    reversal = False
    if bar["filled"]:
        return "filled_bar"
    if now == coin.last_real:
        return "end_of_data"
    if coin.trade:
        if not (config["flip_exit"] and coin.trade["side"] == -d["side"]):
            return "in_position"
        coin.leaving = "flip"
        if config["cooldown_bars"] > 0:
            return None
        reversal = True
    elif coin.exit_time is not None and coin.bars_since(coin.exit_time, now) < config["cooldown_bars"]:
        return "cooldown"
    elif account["max_positions"] is not None:
        if sum(1 for c in coins.values() if c.trade or c.entering) >= account["max_positions"]:
            return "max_positions"
    if config["max_correlation"] is not None:
        for other in coins.values():
            held = other.trade is not None and other.trade["side"] == d["side"]
            waits = other.entering is not None and other.entering["side"] == d["side"]
            if other is not coin and (held or waits):
                known = correlation(coin, other, now, config["correlation_bars"])
                if known is not None and known > config["max_correlation"]:
                    return None if reversal else "correlated"
    sigma = d["vol"] if d.get("vol") is not None else coin.sigma(now)
    size, quantity = config["size"], None
    barriers = any(config[key] is not None for key in ("vol_mult_sl", "vol_mult_tp", "breakeven_sigma", "trail_sigma"))
    if (barriers or "profile" in size) and not (sigma is not None and sigma > 0):
        return None if reversal else "no_sigma"
    if "contracts" in size:
        quantity = size["contracts"] * config["contract_units"]
    if "profile" in size:
        scale = min(max(size["vol_target"] / sigma, 0.3), 1.5)
        dollars = equity * size["position_size"] * size["leverage"] * scale
        contracts = math.floor(dollars / (config["contract_units"] * bar["close"]))
        if contracts <= 0:
            return None if reversal else "size_zero"
        quantity = contracts * config["contract_units"]
    if size.get("notional_usd", (quantity or 0.0) * bar["close"]) < config["min_notional_usd"]:
        return None if reversal else "min_notional"
    coin.entering = {"side": d["side"], "sigma": sigma, "quantity": quantity, "decision_time": now}
    return None


def correlation(coin: Coin, other: Coin, now: int, n: int) -> float | None:
    "Of the last n one-bar returns of two coins, None where one lacks a bar or did not move."
    returns = []
    for c in (coin, other):
        i = c.at.get(now)
        if i is None or i < n:
            return None
        closes = [b["close"] for b in c.bars[i - n : i + 1]]
        returns.append([b / a - 1 for a, b in zip(closes, closes[1:])])
    try:
        return statistics.correlation(*returns)
    except statistics.StatisticsError:
        return None
