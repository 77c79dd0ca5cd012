"""topics: the SNS topics that schedules publish to; seeing, making and trying them."""

from typing import Final

from cronally.admin.wire import to_plain
from cronally.cli import options as o
from cronally.cli.output import err, out, out_json

EXAMPLES: Final = {
    "topics ls": """
        cronally topics ls
        cronally topics ls --json | jq -r '.topics[] | select(.refusing) | .topic'
        """,
}


def topics_ls_command(json: o.Json = False, socket: o.Socket = None) -> None:
    """List the topics that schedules publish to: how many schedules, what is pending, and whether SNS takes messages for them."""
    with o.connect(socket) as client:
        topics = client.topics()
    if json:
        out_json({"topics": to_plain(topics)})
        return
    if not topics:
        err("no schedule names a topic; make one with 'cronally add'")
        return
    from cronally.cli.render import topics_table

    out(topics_table(topics))
