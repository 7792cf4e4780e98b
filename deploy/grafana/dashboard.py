#!/usr/bin/env python3
"""Prints the Grafana dashboard of Claviger, for Grafana 11.6 and newer.

    python -B dashboard.py > claviger.json

It needs the package grafana-foundation-sdk (tests/components/python/requirements.txt has its
version). tests/dashboard.rs holds claviger.json to this program, and asks a Prometheus every query.
What an alert looks at too is a record (claviger:…) of ../prometheus/claviger.rules.yaml, so that
panel and alert never differ; Prometheus must have loaded that file.

Not here, since what they show does not exist yet: refused rollbacks (rollback_healed_total, row 6)
and the expiry of client certificates (client_certificate_expiry_timestamp_seconds, row 9).
"""

import json

from grafana_foundation_sdk.builders import common, dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import ScaleDistribution
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

from shapes import choice, graph, number, query, steps, timeline, words

MINUTE = 60
DAY = 24 * 60 * MINUTE

# kube-apiserver refuses writes when its last good Status is this old.
WRITE_LEASE = 3 * MINUTE

# What a plugin says of itself, and what other programs of the same cluster say: kube-apiserver is
# scraped under another job and instance, and `audit --textfile` speaks through node_exporter.
OURS = 'cluster=~"$cluster",job=~"$job",instance=~"$node"'
THEIRS = 'cluster=~"$cluster"'


# ---- row 1: the key of each node, and kube-apiserver's ------------------------------------------

# Seconds since an apiserver last took a key from Status, for as long as it may write with it. The
# new key's timestamp is set *before* the apiserver writes with it; so it has moved on when the old
# key's has left this list, not when the new key's is on it.
WRITABLE = (
    "(time() - max by (cluster, instance, key_id_hash) ("
    f"apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{{{THEIRS}}}"
    f") < {WRITE_LEASE})"
)


def primary_of_each_node():
    return (
        timeline("Primary key of each node", "claviger-keys-disagree")
        .description("The key that each plugin answers to Status. Two keys for longer than 5 minutes are an alarm.")
        .mappings(words({1: ("primary", "green")}))
        .with_target(query(f'claviger_key_info{{state="primary",{OURS}}}', "{{instance}} {{key_id}}"))
    )


def keys_of_apiservers():
    # Names outlive a plugin's outage; a key's id belongs to one hash, whatever its state was.
    names = f"max by (cluster, key_id_hash, key_id) (last_over_time(claviger_key_info{{{OURS}}}[1h]))"
    expr = f"{WRITABLE} * on (cluster, key_id_hash) group_left (key_id) {names}"
    return (
        graph("Keys that kube-apiserver may write with", "claviger-keys-disagree")
        .description(
            "Seconds since an apiserver last took the key from Status. Gaps of 80 s are healthy; after 180 s it "
            "refuses to write. Two keys of one apiserver are normal for 3 minutes of a rotation."
        )
        .unit(units.Seconds)
        .min(0)
        .max(WRITE_LEASE)
        .thresholds(steps(("orange", 90), ("red", WRITE_LEASE)))
        .with_target(query(expr, "{{instance}} {{key_id}}"))
    )


def apiservers_behind():
    keys = "on (cluster, key_id_hash) claviger_key_info"
    old = f'{keys}{{state!="primary",{OURS}}} unless {keys}{{state="primary",{OURS}}}'
    expr = f"count({WRITABLE} and {old}) or vector(0)"
    return (
        number("kube-apiservers on an old key", "claviger-keys-disagree")
        .description("Apiservers that may still write with a key of ours that no plugin calls primary.")
        .thresholds(steps(("orange", 1)))
        .with_target(query(expr, "apiservers"))
    )


# ---- row 2: the age of the primary KEK ----------------------------------------------------------


def primary_age():
    return (
        number("Age of the primary key", "claviger-key-old")
        .description("The policy rotateEvery says how old it may be; orange is a year, red a year and a tenth.")
        .unit(units.Seconds)
        .thresholds(steps(("orange", 365 * DAY), ("red", 401.5 * DAY)))
        .with_target(query(f"claviger:primary_key_age:seconds{{{THEIRS}}}", "{{cluster}} {{key_id}}"))
    )


# ---- row 3: requests and refusals ---------------------------------------------------------------


def requests():
    expr = f"sum by (method, code) (rate(claviger_requests_total{{{OURS}}}[$__rate_interval])) > 0"
    return (
        graph("Requests by method and code", "claviger-requests-fail")
        .description("An apiserver asks for Status each minute and encrypts seldom: at its start and after a rotation.")
        .unit(units.RequestsPerSecond)
        .min(0)
        .with_target(query(expr, "{{method}} {{code}}"))
    )


def refusals():
    failed = f"claviger:failed_requests:rate2m{{{OURS}}} > 0"
    refused = f"sum by (reason) (rate(claviger_refusals_total{{{OURS}}}[$__rate_interval])) > 0"
    return (
        graph("Failures by method and code, refusals by reason", "claviger-requests-fail")
        .description("Anything here for longer than 2 minutes is an alarm.")
        .unit(units.RequestsPerSecond)
        .min(0)
        .no_value("none")
        .with_target(query(failed, "{{instance}} {{method}} {{code}}"))
        .with_target(query(refused, "refused: {{reason}}", "B"))
    )


# ---- row 4: latency -----------------------------------------------------------------------------


def latency():
    p99 = f'claviger:request_duration_seconds:p99_5m{{method!="unknown",{OURS}}}'
    buckets = f'claviger_request_duration_seconds_bucket{{method!="unknown",{OURS}}}'
    p50 = f"histogram_quantile(0.5, sum by (method, le) (rate({buckets}[5m])))"
    buckets = f'apiserver_envelope_encryption_kms_operations_latency_seconds_bucket{{{THEIRS}}}'
    theirs = f"histogram_quantile(0.99, sum by (method_name, le) (rate({buckets}[5m])))"
    return (
        graph("Latency by method", "claviger-slow")
        .description("A p99 above 100 ms is an alarm; after 3 s an apiserver gives a call up by default.")
        .unit(units.Seconds)
        .scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10))
        .thresholds(steps(("red", 0.1)))
        .with_target(query(p50, "{{method}} p50", "A"))
        .with_target(query(p99, "{{instance}} {{method}} p99", "B"))
        .with_target(query(theirs, "as kube-apiserver saw it: {{method_name}} p99", "C"))
    )


# ---- row 5: Status calls ------------------------------------------------------------------------


def since_status():
    return (
        graph("Since the last Status call", "claviger-status-silent")
        .description("A healthy apiserver may leave gaps of 80 s. After 180 s it refuses to write.")
        .unit(units.Seconds)
        .min(0)
        .thresholds(steps(("orange", 90), ("red", WRITE_LEASE)))
        .with_target(query(f"claviger:status_age:seconds{{{OURS}}}", "{{instance}}"))
    )


# ---- row 6: keyring revisions -------------------------------------------------------------------


def revisions():
    return (
        graph("Keyring revision of each node", "claviger-revisions-differ")
        .description("A node without a line has no open keyring. A revision never falls.")
        .decimals(0)
        .with_target(query(f"claviger_keyring_revision{{{OURS}}}", "{{instance}}"))
    )


def revision_spread():
    revision = f"by (cluster) (claviger_keyring_revision{{{OURS}}})"
    return (
        number("Revisions that the last node is behind", "claviger-revisions-differ")
        .description("More than 0 for 2 minutes is an alarm.")
        .thresholds(steps(("orange", 1)))
        .with_target(query(f"max {revision} - min {revision}", "{{cluster}}"))
    )


# ---- row 7: rotation ----------------------------------------------------------------------------

ROTATION = {
    0: ("none", "transparent"),
    2: ("converge", "blue"),
    3: ("activate", "blue"),
    4: ("publish", "blue"),
    5: ("migrate", "yellow"),
    6: ("prove", "yellow"),
    7: ("destroy", "yellow"),
}


def rotation_step():
    return (
        timeline("Rotation", "claviger-rotation-stuck")
        .description("Blue goes on by itself: an hour of it is an alarm. Yellow waits for an administrator.")
        .mappings(words(ROTATION))
        .with_target(query(f"claviger_rotation_step{{{OURS}}}", "{{instance}}"))
    )


def rotation_waiting():
    return (
        graph("Members that a rotation waits for", "claviger-rotation-stuck")
        .description("claviger status names them.")
        .decimals(0)
        .min(0)
        .with_target(query(f"claviger_rotation_waiting_members{{{OURS}}}", "{{instance}}"))
    )


# ---- row 8: what an audit counted ---------------------------------------------------------------


def audit_objects():
    expr = f"sum by (protection, provider, key_id, state, place) (claviger_audit_objects{{{THEIRS}}}) > 0"
    return (
        graph("Stored values by what protects them", "claviger-audit-stale")
        .description("From claviger audit --textfile on a timer. History and snapshots keep old keys needed.")
        .min(0)
        .decimals(0)
        .with_target(query(expr, "{{place}}: {{protection}} {{provider}} {{key_id}} {{state}}"))
    )


def audit_stale():
    return (
        number("Objects to be rewritten", "claviger-audit-stale")
        .description("Plaintext, and what another key than the primary protects. More than 0 for a day is an alarm.")
        .thresholds(steps(("orange", 1)))
        .no_value("no audit")
        .with_target(query(f"max by (cluster) (claviger_audit_stale_objects{{{THEIRS}}})", "{{cluster}}"))
    )


def audit_age():
    expr = f"time() - max by (cluster) (claviger_audit_last_success_timestamp_seconds{{{THEIRS}}})"
    return (
        number("Age of the last audit", "claviger-audit-old")
        .description("An audit that is not done counts nothing: set a timer. More than 2 days are an alarm.")
        .unit(units.Seconds)
        .thresholds(steps(("red", 2 * DAY)))
        .no_value("no audit")
        .with_target(query(expr, "{{cluster}}"))
    )


# ---- row 9: roots -------------------------------------------------------------------------------


def root_age():
    return (
        graph("Since each root last unwrapped its slot", "claviger-root-stale")
        .description("Requests are served without the root; a start is not. More than 15 minutes are an alarm.")
        .unit(units.Seconds)
        .min(0)
        .thresholds(steps(("red", 15 * MINUTE)))
        .with_target(query(f"claviger:root_age:seconds{{{OURS}}}", "{{instance}} {{root}}"))
    )


def root_state():
    return (
        timeline("State of each root", "claviger-root-stale")
        .description("fresh is well; outage: it cannot be reached; denied: it refuses; key_state: its key is off.")
        .mappings(words({1: ("is", "blue")}))
        .with_target(query(f"claviger_root_state{{{OURS}}} == 1", "{{instance}} {{root}}: {{state}}"))
    )


# ---- row 10: backup and recovery ----------------------------------------------------------------


def backup_behind():
    expr = (
        f"max by (cluster) (claviger_keyring_revision{{{OURS}}})"
        f" - max by (cluster) (claviger_backup_revision{{{OURS}}})"
    )
    return (
        number("Revisions that the last backup lacks", "claviger-backup-behind")
        .description("claviger backup makes a copy that holds the present revision.")
        .thresholds(steps(("red", 1)))
        .no_value("no backup")
        .with_target(query(expr, "{{cluster}}"))
    )


def recovery_test_age():
    expr = f"time() - max by (cluster) (claviger_recovery_tested_timestamp_seconds{{{OURS}}})"
    return (
        number("Since a recovery key was last tested", "claviger-recovery-untested")
        .description("claviger slot test shows that it opens its slot. More than 100 days are an alarm.")
        .unit(units.Seconds)
        .thresholds(steps(("orange", 90 * DAY), ("red", 100 * DAY)))
        .no_value("never")
        .with_target(query(expr, "{{cluster}}"))
    )


# ---- the whole ----------------------------------------------------------------------------------

# Title, and panels with their widths, of 24.
ROWS = [
    ("Keys", [(primary_of_each_node, 9), (keys_of_apiservers, 9), (apiservers_behind, 3), (primary_age, 3)]),
    ("Calls", [(requests, 8), (refusals, 8), (latency, 8)]),
    ("Nodes", [(since_status, 8), (revisions, 8), (revision_spread, 4), (recovery_test_age, 4)]),
    ("Rotation and backup", [(rotation_step, 10), (rotation_waiting, 10), (backup_behind, 4)]),
    ("What is stored", [(audit_objects, 16), (audit_stale, 4), (audit_age, 4)]),
    ("Roots", [(root_age, 12), (root_state, 12)]),
]


def claviger():
    board = (
        dashboard.Dashboard("Claviger")
        .uid("claviger")
        .description(
            "KMS v2 encryption of Kubernetes by Claviger. Prometheus must scrape the plugins and kube-apiserver, have "
            "loaded deploy/prometheus/claviger.rules.yaml, and for objects reach what claviger audit --textfile wrote."
        )
        .tags(["claviger", "kubernetes", "kms"])
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("1m")
        .time("now-6h", "now")
        .variables(variables())
    )
    ids = iter(range(1, 100))
    for title, panels in ROWS:
        board.with_row(dashboard.Row(title).id(next(ids)))
        for panel, width in panels:
            board.with_panel(panel().id(next(ids)).span(width).height(8))
    return board.build()


def variables():
    ours = "claviger_build_info"
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        choice("cluster", "Cluster", f"label_values({ours}, cluster)"),
        choice("job", "Job", f'label_values({ours}{{cluster=~"$cluster"}}, job)'),
        choice("node", "Node", f'label_values({ours}{{cluster=~"$cluster",job=~"$job"}}, instance)'),
        dashboard.TextBoxVariable("runbook")
        .label("Runbook")
        .description("Where your copy of deploy/RUNBOOK.md can be read; panels link to its sections.")
        .default_value("deploy/RUNBOOK.md"),
    ]


if __name__ == "__main__":
    print(json.dumps(claviger(), cls=JSONEncoder, indent=2, sort_keys=True))
