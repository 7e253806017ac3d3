create table customers(id int primary key, name text, email text);
insert into customers values (1,'Ada','ada@example.org'),(2,'Bob',null);
select id, email as x from customers; select count(*) from customers;
select 1/0;
begin; update customers set name = 'Eve' where id = 2 returning *; rollback;
copy customers to stdout;
copy customers to stdout (format csv, header);
copy customers (id, name) from stdin;
3	Cyd
4	Dan
\.
listen ch; notify ch, 'hello';
do $$ begin raise notice 'a notice'; end $$;
set client_encoding = 'LATIN1';

select repeat('x', 3000);
\lo_import psql.sql
declare c cursor for select 1;
