// SPDX-License-Identifier: Apache-2.0
// enter [-m PID] [-n FILE] PARENT COMMAND...: COMMAND, tied to the process that started it. Part of the laboratory.
//
// The kernel kills COMMAND when PARENT dies, however it dies: also when it died before the kernel was asked to.
// With -m it runs in the network, mount and UTS namespaces of process PID (of one machine of the laboratory), with -n
// in the network namespace FILE, which is looked up there. It does what setpriv(1) and nsenter(1) twice would do, in
// one program instead of three, which is what most of a test's time goes into where each instruction is emulated.
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

static void join(const char *path, int kind)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, kind))
		err(125, "%s", path);
	close(fd);
}

// The mounts come last: /proc of the caller's is where PID is looked up. They make / the working directory.
static void join_machine(const char *pid)
{
	static const struct {
		const char *name;
		int kind;
	} spaces[] = {{"net", CLONE_NEWNET}, {"uts", CLONE_NEWUTS}, {"mnt", CLONE_NEWNS}};
	char path[64];

	for (size_t i = 0; i < sizeof(spaces) / sizeof(*spaces); i++) {
		snprintf(path, sizeof(path), "/proc/%s/ns/%s", pid, spaces[i].name);
		join(path, spaces[i].kind);
	}
}

int main(int argc, char **argv)
{
	const char *machine = NULL, *netns = NULL;
	int option;

	while ((option = getopt(argc, argv, "+m:n:")) != -1) {
		if (option == 'm')
			machine = optarg;
		else if (option == 'n')
			netns = optarg;
		else
			return 125;
	}
	if (argc - optind < 2)
		errx(125, "enter [-m PID] [-n FILE] PARENT COMMAND...");
	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		err(125, "PR_SET_PDEATHSIG");
	if (getppid() != atoi(argv[optind]))
		errx(125, "process %s has died", argv[optind]);
	if (machine)
		join_machine(machine);
	if (netns)
		join(netns, CLONE_NEWNET);
	execvp(argv[optind + 1], argv + optind + 1);
	err(127, "%s", argv[optind + 1]);
}
