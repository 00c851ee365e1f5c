/*
 * Replays inputs through a fuzz target that was built with an ordinary compiler: files, or directories of them, given
 * as arguments.  A target says no by abort() or through a sanitizer; nothing to replay is a failure too.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int complain(const char *path)
{
	perror(path);
	return -1;
}

/* Reads exactly `size` bytes into memory of exactly that size, so that a read beyond it shows under ASan. */
static uint8_t *load(const char *path, size_t size)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(size > 0 ? size : 1);

	if (f == NULL || data == NULL || fread(data, 1, size, f) != size) {
		free(data);
		data = NULL;
	}
	if (f != NULL)
		fclose(f);
	return data;
}

static int replay_file(const char *path, size_t size, unsigned *count)
{
	uint8_t *data = load(path, size);

	if (data == NULL)
		return complain(path);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	++*count;
	return 0;
}

static int replay(const char *path, unsigned *count);

static int not_hidden(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static int replay_entry(const char *dir, const char *name, unsigned *count)
{
	char *file;
	int rc;

	if (asprintf(&file, "%s/%s", dir, name) < 0)
		return complain(dir);
	rc = replay(file, count);
	free(file);
	return rc;
}

/* In order of the names, so that two runs do the same. */
static int replay_dir(const char *path, unsigned *count)
{
	struct dirent **names;
	int n = scandir(path, &names, not_hidden, alphasort);
	int rc = 0;

	if (n < 0)
		return complain(path);
	for (int i = 0; i < n; i++) {
		if (rc == 0)
			rc = replay_entry(path, names[i]->d_name, count);
		free(names[i]);
	}
	free(names);
	return rc;
}

static int replay(const char *path, unsigned *count)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return complain(path);
	return S_ISDIR(st.st_mode) ? replay_dir(path, count) : replay_file(path, (size_t)st.st_size, count);
}

int main(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	const char *name = slash != NULL ? slash + 1 : argv[0];
	unsigned count = 0;

	for (int i = 1; i < argc; i++)
		if (replay(argv[i], &count) != 0)
			return EXIT_FAILURE;
	if (count == 0) {
		fprintf(stderr, "%s: nothing to replay\n", name);
		return EXIT_FAILURE;
	}
	printf("%s: %u inputs\n", name, count);
	return EXIT_SUCCESS;
}
