"""Fields of requests that name files on workers, however a body is written."""
