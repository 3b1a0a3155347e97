/* Installed set-uid root: tells whether the kernel honoured that bit, for critest's NoNewPrivs. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
	printf("Effective uid: %u\n", (unsigned)geteuid());
	return 0;
}
