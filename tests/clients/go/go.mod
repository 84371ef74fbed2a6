module guerrilla.test/client

go 1.19
