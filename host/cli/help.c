/* What --help says. */
#include "cli/options.h"

#include <stdio.h>

static const char before[] =
    "usage: moonport serve SCRIPT... [options]   run handlers\n"
    "       moonport mock SCRIPT... [options]    run mocks, which say where they listen\n"
    "       moonport check SCRIPT... [options]   load and validate, run nothing\n"
    "       moonport try SCRIPT [options]        one request on standard input and output\n"
    "\n"
    "  -l, --listen URL        where to listen; repeatable (tcp://127.0.0.1:9999)\n"
    "                          tcp://HOST:PORT udp://HOST:PORT unix://PATH "
    "unixgram://PATH;\n"
    "                          port 0 picks a free one, unix://@NAME is abstract\n"
    "  -m, --mixin NAME        how requests run: async, threading, forking, or sync:\n"
    "                          one at a time (async)\n"
    "  -o, --option NAME=VALUE any attribute below\n"
    "  -w, --watch             reload when a script or a module of its folder changes\n"
    "      --workers N         N processes that share the listeners; one that dies is "
    "replaced\n"
    "      --drain-timeout S   as --option drain_timeout=S\n"
    "      --ready-file PATH   write one JSON line when every listener accepts; - is "
    "stdout\n"
    "                          (mock: - unless given)\n"
    "      --exit-with-parent  stop when standard input reaches its end, or the parent "
    "process ends\n"
    "      --log-format FORMAT text or json (text)\n"
    "      --log-level LEVEL   debug, info, warn or error (info)\n"
    "      --sandbox           no script runs programs, loads C libraries or opens files\n"
    "                          outside its folder\n"
    "      --strict            refuse scripts and modules that other users could have\n"
    "                          changed\n"
    "      --admin HOST:PORT   the control API, or none (mock: 127.0.0.1:0 unless given)\n"
    "      --admin-token-file PATH  the token that it asks for; or MOONPORT_ADMIN_TOKEN\n"
    "      --admin-host NAME   a further name that requests may address it by; repeatable\n"
    "      --allow-script-upload  scripts may be replaced over the control API\n"
    "      --journal SIZE      the most that the journal keeps (64M)\n"
    "      --loop auto|epoll|io_uring  how the kernel tells what has come (auto;\n"
    "                          mock: epoll)\n"
    "      --busy-poll auto|off|MICROSECONDS  poll that long before each sleep; auto: "
    "while\n"
    "                          it pays, and nobody else needs the core (auto)\n"
    "      --version, --help\n"
    "\n"
    "An option before the first script is for all scripts, one behind a script for it "
    "alone.\n"
    "Times are seconds; sizes are bytes and take K, M, G.\n"
    "\n"
    "attributes, for --option or in a handler's `server` table:\n";

static const char behind[] =
    "\n"
    "signals: TERM, INT drain, a second one stops at once; HUP reloads; USR1 logs every "
    "request\n"
    "exit codes: 0 done, 1 a tried request failed or a mock's verdict, 100 wrong usage or "
    "a script with an error,\n"
    "            111 the system said no\n";

/* Attributes stand in between. */
void
options_help(void)
{
	const char *name, *about;

	fputs(before, stdout);
	for (size_t i = 0; (name = attrs_name(i, &about)); i++)
		printf("  %-24s %s\n", name, about);
	fputs(behind, stdout);
}
