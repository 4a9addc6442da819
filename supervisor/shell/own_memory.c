#include "supervisor/shell/own_memory.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t whole_pages(size_t count, size_t item_bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (count * item_bytes + page - 1) / page * page;
}

void *own_memory_new(size_t count, size_t item_bytes)
{
	size_t bytes = whole_pages(count, item_bytes);
	void *memory;

	if (count == 0 || bytes / item_bytes < count)
		return NULL;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return NULL;
	(void)madvise(memory, bytes, MADV_DONTFORK); /* refused, it is only slower */
	return memory;
}

void *own_memory_grow(void *from, size_t old_count, size_t count, size_t item_bytes)
{
	void *memory = own_memory_new(count, item_bytes);

	if (memory == NULL)
		return NULL;
	if (from != NULL)
		memcpy(memory, from, old_count * item_bytes);
	own_memory_free(from, old_count, item_bytes);
	return memory;
}

void own_memory_free(void *memory, size_t count, size_t item_bytes)
{
	if (memory != NULL)
		munmap(memory, whole_pages(count, item_bytes));
}
