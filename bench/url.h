/* url.h - loopback and Unix addresses of the benchmark's two programs.  What is wrong
 * with an address ends the program, with a line on standard error. */
#ifndef BENCH_URL_H
#define BENCH_URL_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

struct url {
	struct sockaddr_storage address;
	socklen_t length;
	int type; /* SOCK_STREAM or SOCK_DGRAM */
};

static inline void
die(const char *what)
{
	perror(what);
	exit(2);
}

/* tcp://127.0.0.1:PORT, udp://127.0.0.1:PORT or unix://PATH */
static inline struct url
url_parse(const char *text)
{
	struct url url = {.type = SOCK_STREAM};
	struct sockaddr_un *un = (void *)&url.address;
	struct sockaddr_in *in = (void *)&url.address;
	char rest;
	unsigned short port;

	if (!strncmp(text, "unix://", 7) && strlen(text + 7) < sizeof(un->sun_path)) {
		un->sun_family = AF_UNIX;
		memcpy(un->sun_path, text + 7, strlen(text + 7) + 1);
		url.length = sizeof(*un);
		return url;
	}
	if (!strncmp(text, "udp:", 4))
		url.type = SOCK_DGRAM;
	if ((url.type == SOCK_STREAM && strncmp(text, "tcp:", 4)) ||
	    sscanf(text + 4, "//127.0.0.1:%hu%c", &port, &rest) != 1) {
		fprintf(stderr, "not an address on loopback: %s\n", text);
		exit(2);
	}
	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	url.length = sizeof(*in);
	return url;
}

/* As many descriptors as the system lets us have. */
static inline void
url_open_files(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

#endif
