import { render } from 'preact';
import { AccountPage } from './app.tsx';
import '../style.css';
import '../parts/form.css';

const root = document.getElementById('app');
if (root) render(<AccountPage />, root);
