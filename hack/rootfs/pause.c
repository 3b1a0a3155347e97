/* The first process of a pod, for runtimes that need an image for it: reaps what it inherits, ends on a signal. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) { (void)signal; _exit(0); }

static void reap(int signal) {
	(void)signal;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int main(void) {
	struct sigaction child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
	signal(SIGINT, end);
	signal(SIGTERM, end);
	sigaction(SIGCHLD, &child, NULL);
	for (;;)
		pause();
}
