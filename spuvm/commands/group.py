"""The group of all commands; each is imported when it is used or when help is shown."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util

import click

from spuvm.runtime.errors import ConfigError

COMMANDS = {
    "compile": "spuvm.commands.compile:compile_",
    "cost": "spuvm.commands.cost:cost",
    "run": "spuvm.commands.run:run",
    "party": "spuvm.commands.party:party",
    "results": "spuvm.commands.keeping:results",
    "dealer": "spuvm.commands.dealer:dealer",
    "stream": "spuvm.commands.stream:stream",
    "sgb": "spuvm.commands.sgb:sgb",
    "serve": "spuvm.commands.service:serve",
    "submit": "spuvm.commands.service:submit",
    "jobs": "spuvm.commands.service:jobs",
    "users": "spuvm.commands.service:users",
    "relay": "spuvm.commands.relay:relay",
    "audit": "spuvm.commands.audit:audit",
    "keys": "spuvm.commands.keys:keys",
    "psi": "spuvm.commands.psi:psi",
    "sql": "spuvm.commands.sql:sql",
    "budget": "spuvm.commands.budget:budget",
    "component": "spuvm.commands.component:component",
    "flow": "spuvm.commands.flow:flow",
    "certificates": "spuvm.commands.certificates:certificates",
    "demo": "spuvm.commands.demo:demo",
    "cache": "spuvm.commands.cache:cache",
    "protocols": "spuvm.commands.protocols:protocols",
    "bench": "spuvm.bench:bench",
}

EXTRAS = {  # what brings a package that a command may lack; all else comes with `cli`
    **dict.fromkeys(("aiohttp", "cronsim", "jinja2", "prometheus_client"), "service"),
    **dict.fromkeys(("duckdb", "sqlglot"), "sql"),
    "dp_accounting": "dp",
    "rbcl": "psi",
}


class Lazy(click.Group):
    """A group whose commands are in `COMMANDS`; those whose module is not there are left out.

    One whose module needs a package that is not installed is listed with what to install.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, where in COMMANDS.items() if importlib.util.find_spec(where.partition(":")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in ("", "spuvm"):
                raise
            command = _lacking(cmd_name, package)
        if not any(p.name == "debug" for p in command.params):
            command.params.append(_debug())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; of a name that is none, the nearest that is one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            nearest = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if not nearest:
                raise
            raise click.UsageError(f"{error.message.rstrip('.')}: did you mean `{nearest[0]}`?", ctx) from None


def _lacking(name: str, package: str) -> click.Command:
    """What stands for a command that cannot be loaded."""
    needs = f"needs the package `{package}`: pip install 'spuvm[{EXTRAS.get(package, 'cli')}]'"

    def refuse() -> None:
        raise ConfigError(f"`spuvm {name}` {needs}.")

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, context_settings=anything, callback=refuse, short_help=needs, add_help_option=False)


def _debug() -> click.Option:
    return click.Option(["--debug"], is_flag=True, expose_value=False, help="Show tracebacks of errors.")


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(importlib.metadata.version("spuvm"), prog_name="spuvm")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks of errors.")
def cli() -> None:
    """Run JAX functions on data that several parties keep secret from each other.

    \b
    From a function to three parties that run it:
      spuvm compile train.py:train --arg 'f32[569,10]@alice' --arg 'f32[569,10]@bob' \\
                    --arg 'f32[569]@carol' -o train.spux
      spuvm cost train.spux
      spuvm certificates keys --parties alice,bob,carol
      spuvm party --config keys/cluster.toml --as alice train.spux --input x=a.csv
    To try it on one machine:
      spuvm run train.spux --input x=a.csv --input y=b.csv --input z=c.csv --network

    A function that should show its result says so: `spu.reveal(x)` shows x to all parties,
    `spu.reveal(x, to="carol")` to one. Everything else stays secret.
    """
