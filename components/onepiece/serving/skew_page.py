"""The skew watch's result as one page: what was checked, what differs, what moved, what to do."""

from datetime import UTC, datetime
from html import escape

from onepiece.pages.charts import paired_bars, swatch
from onepiece.pages.page import Tile, definitions, table, tiles, whole_page
from onepiece.serving.drift import LARGE, MODERATE, SMOOTHING, FeatureDrift
from onepiece.serving.skew import CAUSES
from onepiece.serving.skew_report import SkewReport

TITLE = "Skew watch"
_CAUSE_WORDS = {
    "lag": "the server knew less: equal without the newest of what was received in the {lag_s:g} s "
    "before",
    "late_event": "the server knew more: equal with what was received in the {lag_s:g} s after",
    "unexplained": "neither; a defect until shown otherwise",
}
_PART_WORDS = {
    "query": "the query's row and words",
    "recent": "recent events, of any category",
    "memory": "events in the query's category",
    "anchors": "the query's anchors and number of requests",
    "profile": "the user's labels",
    "instant": "hour and weekday of the request",
    "items": "what the shop knows of the items answered",
    "other": "the order of tokens, or an exposure that names no parts",
}
_FEATURE_WORDS = {
    "num_recent_events": "recent events of a user",
    "num_memory_events": "events of a user in the query's category",
    "newest_event_age_days": "age of the newest event, in days",
    "has_history": "whether the user has any event",
    "action": "strongest action of an item of the history",
    "category": "category of an item of the history",
    "is_known_item": "whether the training knew an item of the history",
    "num_anchor_items": "anchors of the query",
    "num_query_requests": "requests with the query, in the anchors' window",
    "is_known_query": "whether the training knew the query",
    "query": "the query",
    "has_profile": "whether the shop has labels of the user",
    "shelf_price": "price of an item sold for the query; 0 if it is not known",
    "shelf_store_sales": "recent sales in the store of an item sold for the query",
}
_TODO = (
    "<b>Unexplained differences in recent or memory.</b> Compare the online store with the log: "
    "<code>onepiece features check</code>. If it is right, the offline rows are not: backfill them "
    "again, with the consumer's recipe and catalogue.",
    "<b>In anchors, profile or items.</b> Compare one request's rows of both stores: the daily "
    "batch and the backfill must use one recipe, profiles must be written to both, and the server "
    "must read the folder of item tables that the training reads. Anchors of the days before a "
    "user was erased are rebuilt without her: check the days since.",
    "<b>In query or instant.</b> The code that normalises queries or builds contexts differs "
    "between server and job: deploy one version, or give the bundle that answered.",
    "<b>Lag.</b> Not a defect, but the model reads the past: look at "
    "<code>onepiece_events_history_lag_records</code>, add consumers, or accept it.",
    "<b>Late events.</b> The server reads a little after a request's instant; what arrives in "
    "between is known to it and not to training. Harmless while it is rare.",
    "<b>A feature moved.</b> If it is what the shop did (a season, a campaign, a new logging "
    "policy), train again on newer days. If nobody can say why, look for the change in how events "
    "are sent before training on it.",
)


def render_page(report: SkewReport) -> str:
    """Writes the whole page; everything given from outside is escaped."""
    body = [
        _header(report),
        _differences(report),
        _drift(report),
        "<section><h2>What to do</h2>" + "".join(f"<p>{one}</p>" for one in _TODO) + "</section>\n",
        _provenance(report),
    ]
    return whole_page("".join(body), title=f"{TITLE}: {headline(report)}")


def headline(report: SkewReport) -> str:
    """Says the finding in one sentence."""
    counts = report.num_by_result
    if counts["equal"] == report.num_checked:
        found = f"All {report.num_checked:,} contexts were rebuilt equal"
    else:
        found = (
            f"{counts['unexplained']:,} of {report.num_checked:,} contexts differ for no known "
            "reason"
        )
    num_large = sum(one.verdict == "large" for one in report.drift)
    return f"{found}; {num_large} of {len(report.drift)} features moved far" if num_large else found


def _header(report: SkewReport) -> str:
    counts = report.num_by_result
    colour = "bad" if report.is_alarming else "good"
    shown = [
        Tile(f"{report.num_checked:,}", "exposures rebuilt"),
        Tile(f"{counts['equal']:,}", "equal"),
        Tile(f"{counts['lag']:,}", "differ by lag"),
        Tile(f"{counts['late_event']:,}", "differ by a late event"),
        Tile(
            f"{report.unexplained_share:.2%}",
            f"differ unexplained (alarm above {report.recipe.max_mismatch_share:.2%})",
            colour,
        ),
    ]
    return (
        f"<header><h1>{TITLE} &middot; {_at(report.first_ms)} to {_at(report.last_ms)}</h1>\n"
        f'<p class="headline">{escape(headline(report))}</p>\n{tiles(shown)}'
        "<p>Each exposure carries digests of what the model read. Here the same was rebuilt from "
        "the offline store, as it was known at the exposure's instant, by the code that training "
        "uses. Equal digests: training and serving read the same.</p></header>\n"
    )


def _differences(report: SkewReport) -> str:
    """Tabulates where contexts differ and why, with requests to look into."""
    if not report.num_by_part:
        return "<section><h2>Where contexts differ</h2><p>Nowhere.</p></section>\n"
    rows = [
        [
            f"<b>{escape(part)}</b><small>{escape(_PART_WORDS[part])}</small>",
            *(f"{counts[cause]:,}" for cause in CAUSES),
        ]
        for part, counts in report.num_by_part.items()
    ]
    examples = [
        [escape(one.request_id), _at(one.at_ms), one.cause.replace("_", " "), ", ".join(one.parts)]
        for one in report.examples
    ]
    causes = {
        cause.replace("_", " "): _CAUSE_WORDS[cause].format(lag_s=report.recipe.lag_s)
        for cause in CAUSES
    }
    return (
        "<section><h2>Where contexts differ</h2>"
        '<p class="soft">Exposures by part and cause; one may differ in several parts.</p>'
        f"{table(['Part', *causes], rows)}{definitions(causes)}"
        "<h3>Requests to look into</h3>"
        f"{table(['Request', 'At (UTC)', 'Cause', 'Parts'], examples, num_left=4)}</section>\n"
    )


def _drift(report: SkewReport) -> str:
    """Draws each feature in training and in serving."""
    if not report.drift:
        return (
            "<section><h2>Drift</h2><p>The bundle does not say how features were distributed in "
            "its training; one trained with this version does.</p></section>\n"
        )
    legend = (
        f'<div class="legend"><span>{swatch(0)}training ({report.num_training_requests:,} '
        f"requests)</span><span>{swatch(2)}serving ({report.num_checked:,} requests)</span></div>"
    )
    return (
        "<section><h2>Drift: features in training and in serving</h2>"
        '<p class="soft">Population stability index (PSI): 0 if both have the same shares. Below '
        f"{MODERATE:g} a feature is stable, from {LARGE:g} on it moved far (Siddiqi, 2006). Bins "
        f"are tenths of the training, or its most frequent values; {SMOOTHING:g} is added to each "
        "count. By chance: its mean if nothing moved and values were independent; those of one "
        "history are not. Point at a bin for its numbers.</p>"
        f"{legend}{''.join(_feature_row(one) for one in report.drift)}</section>\n"
    )


def _feature_row(one: FeatureDrift) -> str:
    shares = [
        [count / max(side.num_values, 1) for count in side.counts]
        for side in (one.training, one.serving)
    ]
    drawing = paired_bars(shares[0], shares[1], labels=one.labels, title=one.feature)
    index = "-" if one.psi is None else f"{one.psi:.3f}"
    chance = "" if one.chance is None else f"<small>by chance {one.chance:.3f}</small>"
    colour = {"stable": "good", "large": "bad"}.get(one.verdict, "")
    edges = f"{escape(one.labels[0])} &hellip; {escape(one.labels[-1])}"
    return (
        f'<div class="row"><div class="who">{escape(one.feature)}'
        f"<small>{escape(_FEATURE_WORDS[one.feature])}</small></div>"
        f'<div>{drawing}<span class="soft small">{edges}</span></div>'
        f'<div class="values"><b class="{colour}">{index}</b> {one.verdict}{chance}</div></div>\n'
    )


def _provenance(report: SkewReport) -> str:
    recipe = report.recipe
    left_out = ", ".join(f"{why} {count:,}" for why, count in report.num_left_out.items() if count)
    facts = {
        "Bundle version": report.bundle_version,
        "Exposures": f"{_at(report.first_ms)} to {_at(report.last_ms)}, UTC",
        "Sample": f"at most {recipe.num_sampled:,}, seed {recipe.seed}",
        "Not checked": left_out or "none",
        "Lag allowed": f"{recipe.lag_s:g} s",
    }
    return f"<section><h2>Where the numbers come from</h2>{definitions(facts)}</section>\n"


def _at(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")
