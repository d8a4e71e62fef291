"""`jobq topics`: what is known of topics, their settings, and who may come and go."""

import json
import time
from typing import Any, Final

import click

from jobq.cli import counts, limiting, render
from jobq.cli.context import (
    Verb,
    Verbs,
    as_json_option,
    confirm,
    known_topic,
    open_queue,
    refuse,
    say,
    set_and_unset,
    yes_option,
)
from jobq.cli.options import EPILOG, chosen_options, duration, setting_options
from jobq.service import JobService
from jobq.topic import SettingArgs

EVERY: Final = "all topics"
"""As the queue as a whole is called."""

all_option: Final = click.option("--all", "everything", is_flag=True, help="The queue as a whole.")


def _named(command: Verb) -> Verb:
    """Topics, or `--all`."""
    return click.argument("names", metavar="[TOPIC]...", nargs=-1)(all_option(command))


@click.group(cls=Verbs, invoke_without_command=True)
@as_json_option("one JSON object a topic")
@click.pass_context
def topics(ctx: click.Context, *, as_json: bool) -> None:
    """List topics, set and show what limits them, pause, resume and drain them.

    Without a verb it lists them.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, as_json=as_json)
    elif as_json:
        raise click.UsageError("--json stands after the verb", ctx)


@topics.command("list")
@as_json_option("one JSON object a topic")
@click.pass_context
def list_(ctx: click.Context, *, as_json: bool) -> None:
    """List the topics by name: how many jobs are unfinished, how many there are, what limits them.

    Without flow control there are no more columns than that.
    """
    with open_queue(ctx) as svc:
        found = svc.stats()
        settings = counts.settings_of(svc, found)

    shown = counts.topics_as_json if as_json else counts.topics_as_lines
    for line in shown(found, settings):
        click.echo(line)


@topics.command(epilog=EPILOG)
@click.argument("topic", required=False)
@all_option
@setting_options
@click.option(
    "--unset",
    multiple=True,
    type=click.Choice(sorted(SettingArgs.__annotations__)),
    help="Take back a setting, so that the queue's own holds; may be given several times.",
)
@as_json_option("one JSON object")
@click.pass_context
def configure(
    ctx: click.Context,
    /,
    topic: str | None,
    *,
    everything: bool,
    unset: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Change settings of TOPIC, from now on and for all processes, and print all that it has.

    With --all it is about the queue as a whole, which may be paused or draining and have max_jobs
    and max_bytes; these hold beside those of its topics.
    """
    changes = set_and_unset(ctx, chosen_options(given), unset)
    name = _one(ctx, topic, everything=everything)
    with open_queue(ctx) as svc:
        if not changes and name is not None:
            known_topic(ctx, svc, name)
        settings = svc.configure(name, **changes) if changes else svc.settings(name)
    if as_json:
        click.echo(json.dumps(settings.as_dict()))
        return
    for line in limiting.settings_as_lines(settings):
        click.echo(line)
    if not settings.as_dict():
        whose = "the queue as a whole has no settings" if name is None else _has_none(name)
        say(whose)


def _has_none(topic: str) -> str:
    return f"topic {topic!r} has no settings of its own: those of the queue hold"


@topics.command()
@_named
@click.pass_context
def pause(ctx: click.Context, names: tuple[str, ...], *, everything: bool) -> None:
    """Hand out no more jobs of these topics. New ones still come in; what is reserved goes on."""
    with open_queue(ctx) as svc:
        for name in _several(ctx, svc, names, everything=everything):
            svc.pause(name)
            click.echo(f"{_shown(name)} paused")


@topics.command()
@_named
@click.pass_context
def resume(ctx: click.Context, names: tuple[str, ...], *, everything: bool) -> None:
    """Hand out and take in jobs of these topics again, after pause and drain.

    With --all that is taken back which was said of the queue as a whole: topics that were paused
    or drained by name stay so.
    """
    with open_queue(ctx) as svc:
        chosen = _several(ctx, svc, names, everything=everything)
        for name in chosen:
            svc.resume(name)
            click.echo(f"{_shown(name)} resumed")
        for name, word in _still(svc, chosen):
            say(f"topic {name!r} is still {word}: `jobq topics resume` it by name")
        store = svc.settings(None)
        if store.paused or store.draining:
            word = "paused" if store.paused else "draining"
            say(f"the queue as a whole is still {word}: `jobq topics resume --all`")


@topics.command()
@_named
@click.option(
    "--timeout", type=duration, metavar="DURATION", help="Wait so long for all of them together."
)
@click.pass_context
def drain(
    ctx: click.Context, names: tuple[str, ...], *, everything: bool, timeout: float | None
) -> None:
    """Take no new jobs in, and wait until those that are there are done or canceled.

    It takes workers to get there. Topics stay closed afterwards, and if it is interrupted, until
    they are resumed. It ends with 1 if jobs are unfinished when the time is over.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with open_queue(ctx) as svc:
        chosen = _several(ctx, svc, names, everything=everything)
        for name in chosen:
            svc.drain(name, 0)  # all are closed before any is waited for
        for name in chosen:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not svc.drain(name, left):
                jobs = render.count(svc.stats(name).totals.unfinished, "job")
                again = "--all" if name is None else repr(name)
                refuse(
                    ctx,
                    f"{jobs} of {EVERY if name is None else f'topic {name!r}'} unfinished: the "
                    f"time is over; no new ones come in until `jobq topics resume {again}`",
                )
            click.echo(f"{_shown(name)} drained")


@topics.command()
@click.argument("topic", required=False)
@all_option
@as_json_option("one JSON object")
@click.pass_context
def limits(ctx: click.Context, topic: str | None, *, everything: bool, as_json: bool) -> None:
    """Show what limits TOPIC, and how near it is to that."""
    name = _one(ctx, topic, everything=everything)
    with open_queue(ctx) as svc:
        if name is not None:
            known_topic(ctx, svc, name)
        found = svc.limits(name)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
        return
    for line in limiting.limits_as_lines(found):
        click.echo(line)


@topics.command()
@click.argument("topic")
@yes_option
@click.pass_context
def release(ctx: click.Context, topic: str, *, yes: bool) -> None:
    """Give places back that canceled jobs' holders still take up, and begin TOPIC's rate anew.

    They would come back by themselves at the holder's next call, the end of its lease, or its
    death: release a topic if you know that nobody works on these jobs any more. Several take
    --yes where nobody can be asked.
    """
    with open_queue(ctx) as svc:
        known_topic(ctx, svc, topic)
        places = svc.limits(topic).lingering
        if places > 1:
            what = f"release {render.count(places, 'place')} of topic {topic!r}"
            confirm(ctx, what, yes=yes, look="`jobq topics limits`")
        released = svc.release_limits(topic)
    click.echo(f"released: {render.count(released, 'place')}")


def _several(
    ctx: click.Context, svc: JobService, names: tuple[str, ...], *, everything: bool
) -> list[str | None]:
    """The topics that are named, each once; None for the queue as a whole."""
    if bool(names) == everything:
        raise click.UsageError("which topics? Name them, or give --all, not both", ctx)
    known_topic(ctx, svc, *names)
    return [None] if everything else list(dict.fromkeys(names))


def _one(ctx: click.Context, name: str | None, *, everything: bool) -> str | None:
    """The topic that is named; None for the queue as a whole."""
    if (name is not None) == everything:
        raise click.UsageError("which topic? Name one, or give --all, not both", ctx)
    return name


def _shown(name: str | None) -> str:
    return EVERY if name is None else render.printable(name)


def _still(svc: JobService, resumed: list[str | None]) -> list[tuple[str, str]]:
    """Topics that were paused or drained by name, after the queue as a whole was resumed."""
    if resumed != [None]:
        return []
    found = [(name, svc.settings(name)) for name in svc.topics()]
    return [
        (name, "paused" if settings.paused else "draining")
        for name, settings in found
        if settings.paused or settings.draining
    ]
